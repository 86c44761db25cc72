from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import cnn_flax
from cnn_flax.models.densenet import DenseNet
from tests.support import figures
from tests.support.model_checks import check_logits, check_training_pass, relative_norm
from tests.support.small_models import feature_shapes, forward, random_variables

# 200 layers are slow to compile, and twice as slow with gradients.
slow = pytest.mark.slow
long = (slow, pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["densenet121", pytest.param("densenet201", marks=long)]
)
def test_logits_match_the_reference_in_float32(name):
    check_logits(name, f"tv_{name}")


@pytest.mark.slow
def test_a_training_pass_matches_the_reference_in_float64(float64):
    check_training_pass("densenet121", "tv_densenet121")


def test_the_files_that_torchvision_publishes_have_a_dot_more():
    fields = {"stage_sizes": (1, 1), "num_classes": 5}
    model = cnn_flax.create_model("densenet121", **fields)
    variables = random_variables(model, 1, 32, 32, 3)
    state_dict = cnn_flax.weights.to_torch("densenet121", variables)
    layer = "features.denseblock2.denselayer1"
    assert f"{layer}.norm1.weight" in state_dict
    published = {
        k.replace("norm1", "norm.1")
        .replace("norm2", "norm.2")
        .replace("conv1", "conv.1")
        .replace("conv2", "conv.2"): v
        for k, v in state_dict.items()
    }
    assert f"{layer}.norm.1.weight" in published
    loaded = cnn_flax.weights.from_torch("densenet121", published, **fields)
    chex.assert_trees_all_equal(loaded, variables)


def small(**fields: Any) -> DenseNet:
    sizes = {"stage_sizes": (2, 1), "growth_rate": 4, "num_init_features": 6}
    return DenseNet(**{**sizes, "num_classes": 5, **fields})


@pytest.mark.slow
def test_features_leave_under_their_names_with_the_papers_sizes():
    model = cnn_flax.create_model("densenet121")
    assert feature_shapes(model, 1, 224, 224, 3) == {
        "stem": (1, 56, 56, 64),
        "stage1": (1, 56, 56, 256),
        "stage2": (1, 28, 28, 512),
        "stage3": (1, 14, 14, 1024),
        "stage4": (1, 7, 7, 1024),
        "pre_logits": (1, 1024),
    }


def test_a_transition_drops_the_odd_row_and_column():
    assert feature_shapes(small(), 1, 44, 28, 3)["stage2"][1:3] == (5, 3)


def test_each_layer_adds_its_growth_and_passes_on_what_it_read():
    model = small()
    variables = random_variables(model, 2, 16, 16, 3)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    _, features, _ = forward(model, variables, images)
    assert features["stage1"].shape[-1] == 6 + 2 * 4
    np.testing.assert_array_equal(features["stage1"][..., :6], features["stem"])


def test_fields_set_the_widths():
    model = small(bn_size=3, compression=0.25)
    params = random_variables(model, 1, 16, 16, 3)["params"]
    assert params["stage1_layer1"]["conv1"]["kernel"].shape == (1, 1, 6, 12)
    assert params["stage1_layer2"]["conv1"]["kernel"].shape == (1, 1, 10, 12)
    assert params["stage1_layer2"]["conv2"]["kernel"].shape == (3, 3, 12, 4)
    assert params["transition1"]["conv"]["kernel"].shape == (1, 1, 14, 3)
    assert params["bn"]["scale"].shape == (3 + 4,)


def test_small_inputs_keep_their_size_up_to_stage_1():
    shapes = feature_shapes(small(small_inputs=True), 1, 9, 9, 1)
    assert shapes["stem"] == (1, 9, 9, 6)
    assert shapes["stage2"][1:3] == (4, 4)


@pytest.mark.slow
def test_images_that_would_vanish_are_refused():
    model = cnn_flax.create_model("densenet121")
    feature_shapes(model, 1, 29, 29, 3)
    with pytest.raises(ValueError, match="at least 29 x 29 px, got 28 x 40"):
        feature_shapes(model, 1, 28, 40, 3)
    model = cnn_flax.create_model("densenet121", small_inputs=True)
    with pytest.raises(ValueError, match="at least 8 x 8 px, got 7 x 8"):
        feature_shapes(model, 1, 7, 8, 3)


def test_no_classes_give_the_pooled_features():
    model = small(num_classes=0)
    variables = random_variables(model, 1, 16, 16, 3)
    pooled, features, _ = forward(model, variables, jnp.ones((2, 16, 16, 3)))
    np.testing.assert_array_equal(pooled, features["pre_logits"])
    assert "head" not in variables["params"]


@pytest.mark.slow
def test_remat_changes_neither_parameters_nor_the_pass(float64):
    images = jnp.asarray(figures.images(2, 16, 16), jnp.float64)
    plain, remat = (small(remat=r, dtype=jnp.float64) for r in (False, True))
    variables = random_variables(plain, 2, 16, 16, 3)
    shapes = jax.tree.map(jnp.shape, random_variables(remat, 2, 16, 16, 3))
    assert shapes == jax.tree.map(jnp.shape, variables)

    def loss(params, model):
        logits, *others = forward(model, {**variables, "params": params}, images, True)
        return jnp.sum(logits**3), (logits, others)

    chex.assert_trees_all_close(
        *(
            jax.jit(jax.value_and_grad(partial(loss, model=model), has_aux=True))(
                variables["params"]
            )
            for model in (remat, plain)
        ),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, True])
def test_dropout_is_on_in_training_alone(remat):
    model = small(dropout_rate=0.5, remat=remat)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    variables = random_variables(model, 2, 16, 16, 3)
    first, second = (forward(model, variables, images, True, s)[0] for s in (1, 2))
    assert not jnp.array_equal(first, second)
    np.testing.assert_array_equal(
        forward(model, variables, images)[0], forward(small(), variables, images)[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, True])
def test_every_parameter_gets_a_gradient(remat):
    model = small(remat=remat, dropout_rate=0.1)
    images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = random_variables(model, 4, 16, 16, 3)

    def loss(params):
        logits, *_ = forward(model, {**variables, "params": params}, images, True)
        return cnn_flax.losses.cross_entropy(logits, jnp.arange(4))

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, gradient in traverse_util.flatten_dict(gradients).items():
        assert jnp.abs(gradient).max() > 0, path


def test_bfloat16_computes_in_bfloat16_and_keeps_the_rest_in_float32():
    model = small(dtype=jnp.bfloat16)
    variables = random_variables(model, 2, 16, 16, 3)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    logits, features, _ = forward(model, variables, images)
    assert features["stage2"].dtype == jnp.bfloat16
    assert features["pre_logits"].dtype == logits.dtype == jnp.float32
    # bfloat16 has 8 bits: 0.4 % per operation, over about ten of them.
    assert relative_norm(logits, forward(small(), variables, images)[0]) < 0.05


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dropout_rate": 1.0}, r"dropout_rate must be in \[0, 1\), got 1.0"),
        ({"compression": 0.0}, r"compression must be in \(0, 1\], got 0.0"),
    ],
)
def test_fields_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        small(**fields)
