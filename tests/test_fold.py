from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import serialization

import cnn_flax
from cnn_flax.layers import BatchNorm, Conv, ConvBlock
from tests.support.model_checks import relative_norm
from tests.support.small_models import random_variables

RESNET = cnn_flax.create_model(
    "resnet18", num_classes=3, stage_sizes=(1,), width=4, small_inputs=True
)
IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


class Block(nn.Module):
    """One convolution with its norm, and a norm of something else."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = ConvBlock(2, 1, use_bias=True, activation=None, name="block")(
            x, train=train
        )
        return BatchNorm(name="bn")(nn.relu(x), use_running_average=not train)


def test_a_convolution_takes_factor_and_shift_by_hand():
    model: Any = Block()
    variables = {
        "params": {
            "block": {
                "conv": {"kernel": jnp.ones((1, 1, 3, 2)), "bias": jnp.array([1.0, 2])},
                "bn": {"scale": jnp.array([2.0, 3]), "bias": jnp.array([4.0, 5])},
            },
            "bn": {"scale": jnp.ones(2), "bias": jnp.zeros(2)},
        },
        "batch_stats": {
            "block": {
                "bn": {"mean": jnp.array([6.0, 7]), "var": jnp.array([4.0, 9]) - 1e-5}
            },
            "bn": {"mean": jnp.zeros(2), "var": jnp.ones(2)},
        },
    }
    same, folded = cnn_flax.fold_batch_norm(model, variables)
    assert same is model
    # Factors 2 / 2 and 3 / 3, shifts 4 - 6 and 5 - 7.
    expected = {
        "conv": {"kernel": jnp.ones((1, 1, 3, 2)), "bias": jnp.array([1.0, 2])},
        "bn": {"bias": jnp.array([-2.0, -2])},
    }
    chex.assert_trees_all_close(folded["params"]["block"], expected, rtol=1e-6)
    # A norm of anything but a convolution's output is unchanged.
    unchanged = {kind: {"bn": variables[kind]["bn"]} for kind in variables}
    folded["params"].pop("block")
    chex.assert_trees_all_equal(folded, unchanged)
    assert "scale" in variables["params"]["block"]["bn"]


def test_a_folded_model_runs_compiled_and_from_bytes():
    variables = random_variables(RESNET, *IMAGES.shape)
    expected = RESNET.apply(variables, IMAGES)
    model, folded = cnn_flax.fold_batch_norm(RESNET, variables)
    assert relative_norm(jax.jit(model.apply)(folded, IMAGES), expected) < 1e-5
    template = jax.tree.map(jnp.zeros_like, folded)
    restored = serialization.from_bytes(template, serialization.to_bytes(folded))
    chex.assert_trees_all_equal(restored, folded)
    # Only the convolution's bias remains.
    with pytest.raises(ValueError, match="folded BatchNorm cannot be trained"):
        model.apply(folded, IMAGES, train=True, mutable=["batch_stats"])


def test_folding_again_changes_nothing():
    once = cnn_flax.fold_batch_norm(RESNET, random_variables(RESNET, *IMAGES.shape))
    chex.assert_trees_all_equal(cnn_flax.fold_batch_norm(*once)[1], once[1])


def test_layers_that_are_computed_anew_are_folded_too():
    fields = {"stage_sizes": (2,), "growth_rate": 4, "num_classes": 3}
    plain, rematerialized = (
        cnn_flax.create_model("densenet121", small_inputs=True, remat=remat, **fields)
        for remat in (False, True)
    )
    variables = random_variables(plain, *IMAGES.shape)
    expected = plain.apply(variables, IMAGES)
    model, folded = cnn_flax.fold_batch_norm(rematerialized, variables)
    chex.assert_trees_all_equal(folded, cnn_flax.fold_batch_norm(plain, variables)[1])
    assert relative_norm(model.apply(folded, IMAGES), expected) < 1e-5


def test_a_model_without_norms_keeps_its_variables():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Conv(2, (1, 1), name="conv")(x)

    variables = Plain().init(jax.random.key(0), IMAGES)
    _, folded = cnn_flax.fold_batch_norm(Plain(), variables)
    chex.assert_trees_all_equal(folded["params"], variables["params"])
    np.testing.assert_array_equal(Plain().apply(folded, IMAGES).shape, (2, 8, 8, 2))
