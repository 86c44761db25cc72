from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

import cnn_flax
from benchmarks.plain_flax import plain_flax
from cnn_flax.layers import Conv
from tests.models.small import random_variables

RESNET: Any = cnn_flax.create_model(
    "resnext50_32x4d", num_classes=3, stage_sizes=(1,), groups=4, width_per_group=8
)
EFFICIENTNET: Any = cnn_flax.create_model("efficientnet_b0", num_classes=3)
IMAGES = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))


def seen(function, *args, **kwargs):
    """What a function returns, and the types of the layers that it called."""
    types = []

    def note(call, args, kwargs, context):
        types.append(type(context.module))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        return function(*args, **kwargs), types


@pytest.mark.parametrize("train", [False, True])
def test_the_twin_gives_the_same_from_flaxs_layers(train):
    variables = random_variables(RESNET, *IMAGES.shape)
    arguments = {"train": train, "mutable": ["batch_stats"] if train else False}
    ours = RESNET.apply(variables, IMAGES, **arguments)
    with plain_flax():
        theirs, types = seen(RESNET.apply, variables, IMAGES, **arguments)
    chex.assert_trees_all_close(theirs, ours, rtol=1e-4, atol=1e-5)
    # The stem's, a block's three and its shortcut's.
    assert types.count(nn.Conv) == types.count(nn.BatchNorm) == 5
    assert Conv not in types


def test_the_twin_has_the_same_gradients():
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


def test_initialization_is_not_changed():
    with plain_flax():
        shapes = jax.eval_shape(EFFICIENTNET.init, jax.random.key(0), IMAGES)
    ours = jax.eval_shape(EFFICIENTNET.init, jax.random.key(0), IMAGES)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, ours)
