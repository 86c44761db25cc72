from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_flax
from cnn_flax.models.mobilenet_v3 import Block, InvertedResidual, MobileNetV3
from tests.support.model_checks import check_logits, check_training_pass
from tests.support.small_models import drop_path_rates, feature_shapes, random_variables


def small(**fields: Any) -> MobileNetV3:
    return MobileNetV3(**{"stage_sizes": (1, 2), "num_classes": 5, **fields})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_logits_match_the_reference_in_float32(name):
    check_logits(name, f"tv_{name}")


@pytest.mark.slow
def test_a_training_pass_matches_the_reference_in_float64(float64):
    check_training_pass("mobilenet_v3_small", "tv_mobilenet_v3_small", dropout_rate=0.0)


def test_features_have_the_sizes_of_table_2():
    shapes = feature_shapes(cnn_flax.create_model("mobilenet_v3_small"), 1, 224, 224, 3)
    assert shapes == {
        "stem": (1, 112, 112, 16),
        "stage1": (1, 56, 56, 16),
        "stage2": (1, 28, 28, 24),
        "stage3": (1, 14, 14, 40),
        "stage4": (1, 14, 14, 48),
        "stage5": (1, 7, 7, 96),
        "pre_logits": (1, 1024),
    }


def test_further_blocks_repeat_the_stages_last_row_without_its_stride():
    model = small(stage_sizes=(1, 3))
    assert model.row(1, 1) == Block(3, 72, 24, False, "RE", 1)
    assert model.row(1, 2) == model.row(1, 1)
    assert small(small=True).row(0, 1) == Block(3, 16, 16, True, "RE", 1)


def test_a_wider_net_has_multiples_of_8_channels():
    shapes = feature_shapes(small(width_multiplier=0.75), 1, 8, 8, 3)
    # 16 and 24 times 0.75 are 12 and 18, which is nearer to 16 but over 10 % above it.
    assert (shapes["stage1"][-1], shapes["stage2"][-1]) == (16, 24)
    # 1280 times 0.75.
    assert shapes["pre_logits"][-1] == 960


def test_channels_are_gated_by_a_hard_sigmoid():
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 16))
    block = InvertedResidual(16, 16, use_se=True)
    variables = random_variables(block, 1, 4, 4, 16)
    # The projection is linear in the gated channels.
    zeros, ones = jnp.zeros(16), jnp.ones(16)
    variables["params"]["project"]["bn"] = {"scale": ones, "bias": zeros}
    variables["batch_stats"]["project"]["bn"] = {"mean": zeros, "var": ones}
    gate = variables["params"]["squeeze_excite"]["expand"]["conv"]
    gate["kernel"] = jnp.zeros_like(gate["kernel"])

    def branch(bias) -> Any:
        gate["bias"] = jnp.full(16, bias)  # It alone decides the gates.
        return block.apply(variables, x) - x

    np.testing.assert_array_equal(branch(-3.0), 0)
    whole = branch(3.0)
    # relu6(bias + 3) / 6 is left of each channel.
    for bias, share in ((0.0, 0.5), (1.5, 0.75)):
        np.testing.assert_allclose(branch(bias), share * whole, rtol=1e-4, atol=1e-5)


def test_drop_path_grows_linearly_over_the_blocks():
    model = small(stage_sizes=(2, 3), drop_path_rate=0.5)
    rates = drop_path_rates(model)
    # Block i of 5, from 0 on, has i / 5 of the rate; stage 2's first has no shortcut.
    expected = {"stage1_block1": 0, "stage1_block2": 0.1}
    expected |= {"stage2_block2": 0.3, "stage2_block3": 0.4}
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dropout_rate": 1.0}, r"dropout_rate must be in \[0, 1\), got 1"),
        ({"width_multiplier": 0}, "width_multiplier must be positive, got 0"),
        ({"stage_sizes": (1,) * 7}, "at most 6 stages, got 7"),
        ({"stage_sizes": (1,) * 6, "small": True}, "at most 5 stages, got 6"),
    ],
)
def test_bad_arguments_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        small(**fields)
