"""The operations with a CPU formulation, each with what it must equal."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnn_flax.layers import max_pool
from cnn_flax.layers.batch_norm import batch_norm
from cnn_flax.layers.cpu.convolution import Geometry, convolve
from cnn_flax.layers.cpu.depthwise import depthwise_conv
from cnn_flax.layers.cpu.grouped import grouped_conv


class Formulation(NamedTuple):
    """Our operation, JAX's own, and the shapes of the arguments; x comes first."""

    ours: Callable[..., Any]
    plain: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]


def draw(shapes: tuple[tuple[int, ...], ...], seed: int = 0) -> list[jax.Array]:
    """Normally distributed arrays."""
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]


def _depthwise(geometry, size, channels, kernel):
    return Formulation(
        partial(depthwise_conv, geometry=geometry),
        partial(convolve, geometry=geometry, groups=channels),
        ((4, *size, channels), (*kernel, 1, channels)),
    )


def _grouped(geometry, channels, features, groups):
    return Formulation(
        partial(grouped_conv, geometry=geometry, groups=groups),
        partial(convolve, geometry=geometry, groups=groups),
        ((4, 7, 6, channels), (3, 2, channels // groups, features)),
    )


def _max_pool(window, stride, padding):
    return Formulation(
        partial(max_pool, window=window, stride=stride, padding=padding),
        lambda x: nn.max_pool(
            x, (window,) * 2, (stride,) * 2, ((padding, padding),) * 2
        ),
        ((4, 7, 6, 3),),
    )


def _plain_batch_norm(x, scale, bias):
    """As Flax computes it, with sums about the first rows' mean."""
    rough = jax.lax.stop_gradient(x[:, :1].mean((0, 1, 2)))
    rest = x - rough.reshape(1, 1, 1, -1)
    mean, square = (v.mean((0, 1, 2)) for v in (rest, rest**2))
    var = jnp.maximum(0, square - mean**2)
    mean = rough + mean
    over_std = jax.lax.rsqrt(var + 1e-3)
    mean_, over_std, scale, bias = (
        v.reshape(1, 1, 1, -1) for v in (mean, over_std, scale, bias)
    )
    return (x - mean_) * (over_std * scale) + bias, mean, var


UNEVEN = Geometry((2, 1), ((1, 0), (2, 1)), (1, 2))

FORMULATIONS = {
    "depthwise 3x3": _depthwise(Geometry((1, 1), ((1, 1),) * 2), (7, 6), 5, (3, 3)),
    "depthwise 5x5/2": _depthwise(Geometry((2, 2), ((2, 2),) * 2), (7, 6), 5, (5, 5)),
    "depthwise uneven": _depthwise(UNEVEN, (8, 6), 5, (3, 2)),
    "depthwise 3x3/2 no padding": _depthwise(Geometry((2, 2)), (8, 7), 5, (3, 3)),
    "grouped": _grouped(Geometry((1, 1), ((1, 1),) * 2), 12, 24, 3),
    "grouped uneven": _grouped(UNEVEN, 12, 6, 6),
    "grouped wide": _grouped(UNEVEN, 80, 160, 20),
    "two groups": _grouped(UNEVEN, 80, 80, 2),
    "max pool 3x3/2": _max_pool(3, 2, 1),
    "max pool 2x2": _max_pool(2, 2, 0),
    "batch norm": Formulation(
        partial(batch_norm, epsilon=1e-3),
        _plain_batch_norm,
        ((4, 7, 6, 5), (5,), (5,)),
    ),
}
