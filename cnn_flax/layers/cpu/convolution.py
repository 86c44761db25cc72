"""XLA's own convolution: the reference that every other formulation must equal."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import core, lax

from cnn_flax.layers.cpu.dispatch import dispatch
from cnn_flax.layers.cpu.materialize import materialize_on_cpu

__all__ = [
    "Geometry",
    "convolve",
    "dense_conv",
    "fit_to_windows",
    "has_symbolic_size",
    "subsample",
    "window_span",
]


class Geometry(NamedTuple):
    """How a kernel moves over an image; each field is per (vertical, horizontal) axis.

    Attributes:
      strides: step between the kernel's positions, in pixels.
      padding: pixels of zeros (before, after) the image.
      dilation: step between the kernel's taps, in pixels.
    """

    strides: tuple[int, int] = (1, 1)
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)


def convolve(
    x: jax.Array, kernel: jax.Array, geometry: Geometry, groups: int = 1
) -> jax.Array:
    """`[N, H, W, C] -> [N, H', W', features]`, kernel `[kh, kw, C / groups, features]`.

    Args:
      x: `[N, H, W, C]`.
      kernel: `[kh, kw, C / groups, features]`, of the dtype of `x`.
      geometry: strides, padding and dilation.
      groups: number of groups of channels that do not see each other.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def window_span(size: int, window: int, stride: int) -> int:
    """Pixels from the first to the last position of a window that moves inside an axis.

    A slice of that many pixels has as many positions as a convolution, in the same form
    for symbolic sizes; `x[::stride]` has as many, but JAX cannot tell.
    """
    return core.max_dim((size - window) // stride * stride + 1, 0)


def fit_to_windows(
    x: jax.Array,
    value: float,
    padding: Sequence[tuple[int, int]],
    window: Sequence[int],
    strides: Sequence[int],
) -> jax.Array:
    """Pads an image of symbolic size, and cuts off what no window reaches.

    JAX takes only constants as the padding of windows, whose gradients would pad by
    what no window reaches.

    Args:
      x: `[N, H, W, C]`.
      value: what to pad with.
      padding: pixels (before, after) the image, per axis.
      window: pixels from a window's first to its last, per axis.
      strides: step between windows, per axis.
    """
    around = []
    for size, (low, high), reach, stride in zip(
        x.shape[1:3], padding, window, strides, strict=True
    ):
        end = window_span(size + low + high, reach, stride) + reach - 1
        around.append((low, end - size - low, 0))
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), *around, (0, 0, 0)])


def has_symbolic_size(x: jax.Array) -> bool:
    """Whether height or width is known only when the program runs (`jax.export`)."""
    return not all(isinstance(size, int) for size in x.shape[1:3])


def subsample(x: jax.Array, strides: tuple[int, int]) -> jax.Array:
    """The pixels that a 1x1 convolution sees: `[N, H, W, C] -> [N, H', W', C]`."""
    if strides == (1, 1):
        return x
    ends = [
        window_span(size, 1, stride)
        for size, stride in zip(x.shape[1:3], strides, strict=True)
    ]
    # Indexing would gather where the number of images is symbolic.
    limits = (x.shape[0], *ends, x.shape[3])
    return lax.slice(x, (0, 0, 0, 0), limits, (1, *strides, 1))


def dense_conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`convolve` without groups, whose gradients a CPU computes faster."""
    plain = partial(convolve, geometry=geometry)
    return dispatch(plain, plain, partial(_gradients, plain))(x, kernel)


def _gradients(plain, arguments, y, dy):
    """The gradients of a convolution on a CPU, which read `dy` with transposed axes."""
    del y
    return jax.vjp(plain, *arguments)[1](materialize_on_cpu(dy, arguments[1]))
