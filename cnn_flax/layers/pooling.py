"""Pooling with the paddings of the published networks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import core, lax

from cnn_flax.layers.arguments import (
    check_least_size,
    check_maps,
    whole_number,
    whole_pair,
)
from cnn_flax.layers.cpu.convolution import fit_to_windows, has_symbolic_size
from cnn_flax.layers.cpu.dispatch import dispatch
from cnn_flax.layers.cpu.max_pool import max_pool_gradients

__all__ = ["adaptive_avg_pool", "avg_pool", "global_avg_pool", "max_pool"]


def max_pool(
    x: jax.Array,
    window: int,
    stride: int,
    padding: int = 0,
    *,
    ceil_mode: bool = False,
) -> jax.Array:
    """Largest value of each window: `[N, H, W, C] -> [N, H', W', C]`.

    Args:
      x: `[N, H, W, C]`.
      window: height and width of the window, in pixels.
      stride: step between windows, in pixels.
      padding: pixels of minus infinity on each side.
      ceil_mode: whether a last window may extend over the border, so that no pixel is
        left out; the same as torch's for `window >= stride + padding`.

    Returns:
      `[N, H', W', C]` with `H' = (H + 2 * padding - window) / stride + 1`, rounded down
      or, with `ceil_mode`, up.

    Raises:
      ValueError: if `x` is not of rank 4, or a size is not a whole number in range.
      TypeError: if `x` is not of floats.
    """
    check_maps(x)
    window, stride = whole_number("window", window), whole_number("stride", stride)
    padding = whole_number("padding", padding, least=0)
    sizes = [size + 2 * padding for size in x.shape[1:3]]
    over = [_overhang(size, window, stride) if ceil_mode else 0 for size in sizes]
    pad: Any = tuple((padding, padding + pixels) for pixels in over)
    if has_symbolic_size(x):
        least = window - stride + 1 if ceil_mode else window
        check_least_size("Padded maps", sizes, least)
        x = fit_to_windows(x, -jnp.inf, pad, (window, window), (stride, stride))
        pad = ((0, 0), (0, 0))
    plain = partial(
        nn.max_pool,
        window_shape=(window, window),
        strides=(stride, stride),
        padding=pad,
    )
    gradients = partial(max_pool_gradients, window, stride, pad)
    return dispatch(plain, plain, gradients)(x)


def avg_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Mean of each window; the last ones are cut at the border (torch's `ceil_mode`).

    Args:
      x: `[N, H, W, C]`.
      window: height and width of the window, in pixels; not below `stride`.
      stride: step between windows, in pixels.

    Returns:
      `[N, ceil(H / stride), ceil(W / stride), C]` where `window == stride`. A window
      that extends over the border is the mean of the pixels inside.

    Raises:
      ValueError: if `x` is not of rank 4, or a size is not a whole number in range.
      TypeError: if `x` is not of floats.
    """
    check_maps(x)
    window, stride = whole_number("window", window), whole_number("stride", stride)
    pad: Any = tuple((0, _overhang(size, window, stride)) for size in x.shape[1:3])
    return nn.avg_pool(
        x, (window, window), (stride, stride), pad, count_include_pad=False
    )


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over the image, in float32 or wider: `[N, H, W, C] -> [N, C]`.

    Raises:
      ValueError: if `x` is not of rank 4.
      TypeError: if `x` is not of floats.
    """
    check_maps(x)
    return jnp.mean(x, axis=(1, 2), dtype=jnp.promote_types(jnp.float32, x.dtype))


def adaptive_avg_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Mean over windows that divide the image, in float32 or wider.

    Window i of n along an axis of L pixels goes from `floor(i * L / n)` to
    `ceil((i + 1) * L / n)`, as in torch: neighbours overlap where n does not divide L,
    and pixels repeat where n is above L.

    Args:
      x: `[N, H, W, C]`.
      size: height and width of the result, in pixels.

    Returns:
      `[N, *size, C]`; `x` itself where it has that size.

    Raises:
      ValueError: if `x` is not of rank 4, or `size` are not two positive whole numbers.
      TypeError: if `x` is not of floats.
    """
    check_maps(x)
    size = whole_pair("size", size)
    x = x.astype(jnp.promote_types(jnp.float32, x.dtype))
    for axis, n in zip((1, 2), size, strict=True):
        length = x.shape[axis]
        if length == n:
            continue
        mean = _window_mean if isinstance(length, int) else _masked_window_mean
        x = jnp.stack([mean(x, i, n, axis) for i in range(n)], axis)
    return x


def _window_mean(x: jax.Array, i: int, n: int, axis: int) -> jax.Array:
    """Mean over window `i` of `n` along an axis."""
    start, end = _window(i, n, x.shape[axis])
    return jnp.mean(lax.slice_in_dim(x, start, end, axis=axis), axis)


def _masked_window_mean(x: jax.Array, i: int, n: int, axis: int) -> jax.Array:
    """`_window_mean` along an axis whose length is known only to the running program.

    So it is under `jax.export` with symbolic sizes, which cannot bound such slices.
    """
    length = x.shape[axis]
    start, end = _window(i, n, jnp.asarray(length))
    pixel = lax.broadcasted_iota(jnp.int32, x.shape, axis)
    return jnp.mean(x, axis, where=(start <= pixel) & (pixel < end))


def _window(i, n, length):
    return i * length // n, -(-(i + 1) * length // n)


def _overhang(size: int, window: int, stride: int) -> int:
    """Pixels by which the last window extends over the border, if none is left out."""
    steps = core.max_dim(-((window - size) // stride), 0)
    return steps * stride + window - size
