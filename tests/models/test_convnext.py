import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_flax
from cnn_flax.models.convnext import ConvNeXt, ConvNeXtBlock
from tests.support import figures
from tests.support.model_checks import check_logits, check_training_pass
from tests.support.small_models import drop_path_rates, feature_shapes, random_variables


@pytest.mark.slow
def test_logits_match_the_reference_in_float32():
    check_logits("convnext_tiny", "tv_convnext_tiny")


@pytest.mark.slow
def test_a_training_pass_matches_the_reference_in_float64(float64):
    check_training_pass("convnext_tiny", "tv_convnext_tiny", drop_path_rate=0.0)


def test_features_are_rounded_down_at_each_halving():
    shapes = feature_shapes(cnn_flax.create_model("convnext_tiny"), 1, 67, 96, 3)
    assert {name: shape[1:] for name, shape in shapes.items()} == {
        "stem": (16, 24, 96),
        "stage1": (16, 24, 96),
        "stage2": (8, 12, 192),
        "stage3": (4, 6, 384),
        "stage4": (2, 3, 768),
        "pre_logits": (768,),
    }


def test_a_block_begins_close_to_its_input():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    variables = ConvNeXtBlock().init(jax.random.key(1), x)
    scale = variables["params"]["layer_scale"]
    np.testing.assert_array_equal(scale, jnp.full(8, 1e-6))
    np.testing.assert_allclose(ConvNeXtBlock().apply(variables, x), x, atol=1e-5)


def test_layer_scale_weighs_the_branch_by_channel():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    variables = random_variables(ConvNeXtBlock(), *x.shape)

    def branch(scale):
        params = {**variables["params"], "layer_scale": jnp.asarray(scale)}
        return ConvNeXtBlock().apply({"params": params}, x) - x

    weights = jnp.arange(8.0)
    expected = branch(jnp.ones(8)) * weights[None, None, None]
    np.testing.assert_allclose(branch(weights), expected, rtol=1e-4, atol=1e-5)


def test_layer_scale_has_torchs_shape_in_a_state_dict():
    shapes = figures.model_figures("tv_convnext_tiny")["state_dict"]
    state_dict = figures.seeded_state_dict(shapes)
    variables = cnn_flax.weights.from_torch("convnext_tiny", state_dict)
    assert variables["params"]["stage1_block1"]["layer_scale"].shape == (96,)
    back = cnn_flax.weights.to_torch("convnext_tiny", variables)
    assert set(back) == set(state_dict)
    for entry, array in state_dict.items():
        np.testing.assert_array_equal(back[entry], array, err_msg=entry)


def test_drop_path_reaches_its_rate_at_the_last_block():
    model = ConvNeXt(stage_features=(8, 8), stage_sizes=(2, 3), drop_path_rate=0.4)
    rates = drop_path_rates(model)
    assert list(rates.values()) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ConvNeXt(stage_sizes=(1,)),
            "stage_sizes has 1 stages, and stage_features 4",
        ),
        (lambda: ConvNeXt(drop_path_rate=1.0), r"drop_path_rate must be in \[0, 1\)"),
        (
            lambda: ConvNeXt().init(jax.random.key(0), jnp.zeros((1, 31, 32, 3))),
            "at least 32 x 32 px",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
