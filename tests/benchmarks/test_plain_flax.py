from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

import cnn_flax
from benchmarks.plain_flax import plain_flax
from cnn_flax.layers import Conv
from tests.support.small_models import random_variables

RESNET: Any = cnn_flax.create_model(
    "resnext50_32x4d", num_classes=3, stage_sizes=(1,), groups=4, width_per_group=8
)
EFFICIENTNET: Any = cnn_flax.create_model(
    "efficientnet_b0", num_classes=3, stages=((16, 1, 3, 1, 1), (24, 2, 5, 2, 6))
)
IMAGES = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))


def with_layer_types(function):
    """A function's result and the types of the layers that it called."""
    types = []

    def note(call, args, kwargs, context):
        types.append(type(context.module))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        return function(), types


@pytest.mark.parametrize("train", [False, True])
def test_outputs_are_the_same_with_flaxs_layers(train):
    variables = random_variables(RESNET, *IMAGES.shape)
    options = {"train": train, "mutable": ["batch_stats"] if train else False}

    def run():
        return jax.jit(lambda *arguments: RESNET.apply(*arguments, **options))(
            variables, IMAGES
        )

    ours = run()
    with plain_flax():
        theirs, types = with_layer_types(run)
    chex.assert_trees_all_close(theirs, ours, rtol=1e-4, atol=1e-5)
    # One in the stem, three in the block and one in its shortcut.
    assert types.count(nn.Conv) == types.count(nn.BatchNorm) == 5
    assert Conv not in types


@pytest.mark.slow
def test_gradients_are_the_same_with_flaxs_layers():
    variables = random_variables(RESNET, *IMAGES.shape)

    def loss(params):
        logits, _ = RESNET.apply(
            {**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"]
        )
        return jnp.square(logits).mean()

    ours = jax.jit(jax.grad(loss))(variables["params"])
    with plain_flax():
        theirs = jax.jit(jax.grad(lambda params: loss(params)))(variables["params"])
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(ours))
    chex.assert_trees_all_close(theirs, ours, rtol=1e-3, atol=1e-5 * scale)


def test_initialization_is_unchanged():
    with plain_flax():
        shapes = jax.eval_shape(EFFICIENTNET.init, jax.random.key(0), IMAGES)
    ours = jax.eval_shape(EFFICIENTNET.init, jax.random.key(0), IMAGES)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, ours)
