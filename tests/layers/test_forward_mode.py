"""Forward mode through every public layer."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnn_flax import layers
from cnn_flax.layers import BatchNorm, Conv
from tests.support.small_models import random_variables

FLOAT64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
SHAPE = (2, 6, 5, 4)
# Positions inside and outside of the image.
GRID = jnp.linspace(-1.3, 1.2, 2 * 4 * 3 * 2).reshape(2, 4, 3, 2)

MODULES = {
    "Conv": Conv(6, (3, 3), **FLOAT64),
    "Conv, pointwise": Conv(6, (1, 1), 2, **FLOAT64),
    "Conv, whole image": Conv(6, (6, 5), padding=0, **FLOAT64),
    "Conv, depthwise": Conv(4, (3, 3), 2, 1, feature_group_count=4, **FLOAT64),
    "Conv, two groups": Conv(6, (3, 3), 2, 1, feature_group_count=2, **FLOAT64),
    "BatchNorm": BatchNorm(use_running_average=False, **FLOAT64),
    "ConvBlock": layers.ConvBlock(
        6, 3, conv=partial(Conv, **FLOAT64), norm=partial(BatchNorm, **FLOAT64)
    ),
    "DeformConv": layers.DeformConv(6, (3, 3), padding=1, modulated=True, **FLOAT64),
    "SqueezeExcite": layers.SqueezeExcite(2),
}
FUNCTIONS = {
    "max_pool": lambda x: layers.max_pool(x, 3, 2, 1),
    "avg_pool": lambda x: layers.avg_pool(x, 3, 2),
    "global_avg_pool": layers.global_avg_pool,
    "adaptive_avg_pool": lambda x: layers.adaptive_avg_pool(x, (4, 3)),
    "grid_sample": lambda x: layers.grid_sample(x, GRID.astype(x.dtype)),
    "local_response_norm": layers.local_response_norm,
}


def normal(seed, shape=SHAPE):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def apply(module, variables, x):
    return module.apply(variables, x, mutable=["batch_stats"])[0]


def function_of(name):
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    module = MODULES[name]
    return partial(apply, module, random_variables(module, *SHAPE))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODULES, *FUNCTIONS])
def test_slopes_and_hessians_are_those_of_differences(name, float64):
    function, x, direction = function_of(name), normal(1), normal(2)

    def loss(x):
        return jnp.sin(function(x)).sum()

    @jax.jit
    def derivatives(x):
        _, slope = jax.jvp(function, (x,), (direction,))
        gradient, curvature = jax.jvp(jax.grad(loss), (x,), (direction,))
        reverse = jax.grad(lambda x: jax.jvp(loss, (x,), (direction,))[1])(x)
        return slope, curvature, reverse, function(x), gradient

    slope, curvature, reverse, *_ = derivatives(x)
    step = 1e-6
    *_, above, gradient_above = derivatives(x + step * direction)
    *_, below, gradient_below = derivatives(x - step * direction)
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
    close(slope, (above - below) / (2 * step))
    close(curvature, (gradient_above - gradient_below) / (2 * step))
    close(reverse, curvature)


@pytest.mark.parametrize(
    ("name", "flax"),
    [
        ("Conv, two groups", nn.Conv(6, (3, 3), 2, 1, feature_group_count=2)),
        ("Conv, depthwise", nn.Conv(4, (3, 3), 2, 1, feature_group_count=4)),
        ("BatchNorm", nn.BatchNorm(use_running_average=False)),
    ],
)
def test_forward_mode_is_that_of_flax(name, flax, float64):
    ours = function_of(name)
    plain = partial(apply, flax, *ours.args[1:])

    def all_of(function, x):
        _, along = jax.linearize(function, x)
        return jax.jacfwd(function)(x), along(normal(2)), jax.jacrev(function)(x)

    for found, expected in zip(
        *(jax.jit(partial(all_of, f))(normal(1)) for f in (ours, plain)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
