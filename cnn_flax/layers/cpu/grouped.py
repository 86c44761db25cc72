"""Grouped convolution."""

from functools import partial

import jax
import jax.numpy as jnp

from cnn_flax.layers.cpu.convolution import Geometry, convolve
from cnn_flax.layers.cpu.dispatch import dispatch

__all__ = ["grouped_conv"]

_BLOCK = 32  # Channels from which on a dense convolution is worthwhile.


def grouped_conv(
    x: jax.Array, kernel: jax.Array, geometry: Geometry, groups: int
) -> jax.Array:
    """`[N, H, W, C] -> [N, H', W', features]` in `groups` groups.

    The kernel is `[kh, kw, C / groups, features]`. A CPU convolves blocks of 32 or more
    channels densely, with zeros for the weights between different groups.
    """
    plain = partial(convolve, geometry=geometry, groups=groups)
    on_cpu = partial(_blocks, geometry=geometry, groups=groups)
    return dispatch(plain, on_cpu)(x, kernel)


def _blocks(x, kernel, geometry, groups):
    width = kernel.shape[2]
    together = max(
        n
        for n in range(1, groups + 1)
        if groups % n == 0 and n * width <= max(_BLOCK, width)
    )
    blocks = groups // together
    parts = [
        convolve(part, _dense(weights, together), geometry)
        for part, weights in zip(
            jnp.split(x, blocks, -1), jnp.split(kernel, blocks, -1), strict=True
        )
    ]
    return jnp.concatenate(parts, -1)


def _dense(kernel, groups):
    """The kernel of the equal convolution without groups."""
    kh, kw, width, features = kernel.shape
    joined = kernel.reshape(kh, kw, 1, width, groups, features // groups)
    own = jnp.eye(groups, dtype=kernel.dtype).reshape(1, 1, groups, 1, groups, 1)
    return (joined * own).reshape(kh, kw, groups * width, features)
