"""A batch without images gives results without images, and gradients of 0."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnn_flax import layers
from cnn_flax.layers.remat import remat
from cnn_flax.models.densenet import DenseLayer

X = jnp.zeros((0, 9, 8, 4))
OPERATORS = {
    "max_pool": (partial(layers.max_pool, window=3, stride=2, padding=1), (0, 5, 4, 4)),
    "max_pool ceil": (
        partial(layers.max_pool, window=2, stride=2, ceil_mode=True),
        (0, 5, 4, 4),
    ),
    "avg_pool": (partial(layers.avg_pool, window=3, stride=2), (0, 4, 4, 4)),
    "global_avg_pool": (layers.global_avg_pool, (0, 4)),
    "adaptive_avg_pool": (
        partial(layers.adaptive_avg_pool, size=(6, 3)),
        (0, 6, 3, 4),
    ),
    "local_response_norm": (layers.local_response_norm, X.shape),
    "grid_sample": (
        lambda x: layers.grid_sample(x, jnp.zeros((0, 2, 3, 2))),
        (0, 2, 3, 4),
    ),
    "grid_sample nearest": (
        lambda x: layers.grid_sample(
            x, jnp.zeros((0, 2, 3, 2)), "nearest", "reflection"
        ),
        (0, 2, 3, 4),
    ),
    "deform_conv2d": (
        lambda x: layers.deform_conv2d(
            x,
            jnp.zeros((0, 7, 6, 18)),
            jnp.ones((3, 3, 4, 5)),
            mask=jnp.ones((0, 7, 6, 9)),
        ),
        (0, 7, 6, 5),
    ),
}


@pytest.mark.parametrize(("operator", "shape"), OPERATORS.values(), ids=OPERATORS)
def test_an_operator(operator, shape):
    y, gradient = jax.value_and_grad(lambda x: operator(x).sum())(X)
    assert y == 0
    assert operator(X).shape == shape
    assert gradient.shape == X.shape


CONVOLUTIONS = {
    "dense": dict(features=8, kernel_size=(3, 3)),
    "dense strided": dict(features=8, kernel_size=(3, 3), strides=2),
    "1x1": dict(features=8, kernel_size=(1, 1), strides=2),
    "depthwise": dict(features=4, kernel_size=(3, 3), feature_group_count=4),
    "grouped": dict(features=8, kernel_size=(3, 3), feature_group_count=2),
    "of the whole image": dict(features=8, kernel_size=(9, 8), padding=0),
    "of the whole image, grouped": dict(
        features=8, kernel_size=(9, 8), padding=0, feature_group_count=2
    ),
}


@pytest.mark.parametrize("arguments", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_is_as_flaxs(arguments):
    ours, flax = layers.Conv(**arguments), nn.Conv(**arguments)
    variables = ours.init(jax.random.key(0), X)
    assert ours.apply(variables, X).shape == flax.apply(variables, X).shape
    gradients = [
        jax.grad(lambda v, x, m=m: m.apply(v, x).sum(), (0, 1))(variables, X)
        for m in (ours, flax)
    ]
    chex.assert_trees_all_equal(*gradients)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_norm_keeps_its_statistics(dtype):
    norm = layers.BatchNorm(dtype=dtype)
    batch = jax.random.normal(jax.random.key(0), (8, 3, 3, 4))
    variables = norm.init(jax.random.key(0), batch, use_running_average=False)
    train = partial(norm.apply, use_running_average=False, mutable=["batch_stats"])
    variables |= train(variables, batch)[1]

    def loss(params, x):
        y, new = train({**variables, "params": params}, x)
        return y.sum(), (y, new)

    gradients, (y, new) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(
        variables["params"], X.astype(dtype)
    )
    chex.assert_shape(y, X.shape)
    chex.assert_type(y, dtype)
    chex.assert_trees_all_equal(new["batch_stats"], variables["batch_stats"])
    chex.assert_trees_all_equal(gradients, jax.tree.map(jnp.zeros_like, gradients))


def test_blocks():
    for block, options in (
        (layers.ConvBlock(8, 3), {"train": True}),
        (layers.DeformConv(8, (3, 3), padding=1, modulated=True), {}),
        (layers.SqueezeExcite(2), {}),
        (layers.DropPath(0.5), {"deterministic": False}),
    ):
        y, _ = block.init_with_output(
            {"params": jax.random.key(0), "dropout": jax.random.key(1)}, X, **options
        )
        assert y.shape[:3] == X.shape[:3]


@pytest.mark.slow
def test_rematerialized_layers():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            y, (x,) = remat(DenseLayer(4, name="layer"), x, train=True)
            return y.sum() + x.sum()

    net = Net()
    variables = net.init(jax.random.key(0), X)
    gradients = jax.grad(
        lambda params: net.apply(
            {**variables, "params": params}, X, mutable=["batch_stats"]
        )[0]
    )(variables["params"])
    for gradient in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(gradient, 0)
