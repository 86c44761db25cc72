"""Sampling an image between its pixels."""

import jax
import jax.numpy as jnp
from jax import core

from cnn_flax.own_gradient import with_gradient

__all__ = ["read_bilinear", "read_nearest"]


def read_bilinear(
    pixels: jax.Array,
    size: tuple[int, int],
    y: jax.Array,
    x: jax.Array,
    scale: jax.Array | None = None,
) -> jax.Array:
    """Interpolates the four pixels around each position; those outside weigh zero.

    Positions may lie anywhere: far outside and at infinity they read zero. NaN reads
    NaN.

    Args:
      pixels: `[H * W, C]`, one image in row-major order. Use `jax.vmap` for a batch:
        every device would gather the whole of a flat `[N * H * W, C]`.
      size: (H, W); symbolic ones, under `jax.export`, are at least 2.
      y: `[P]` vertical positions, in pixels; 0 is the centre of the first pixel.
      x: `[P]` horizontal positions, in pixels.
      scale: `[P]` factors that the values are multiplied by, or None.

    Returns:
      `[P, C]`, in the wider dtype of pixels and positions.
    """
    row, vertical = _neighbours(y, size[0])
    column, horizontal = _neighbours(x, size[1])
    # One index for all four corners: on a CPU, indices cost more than pixels.
    first = row * size[1] + column
    total = 0
    for down, (row_weight, in_row) in enumerate(vertical):
        if scale is not None:
            row_weight *= scale
        for right, (column_weight, in_column) in enumerate(horizontal):
            corner = _take(pixels, first + (down * size[1] + right))
            total += _weighed(row_weight * column_weight, corner, in_row & in_column)
    return jnp.asarray(total)


def read_nearest(
    pixels: jax.Array, size: tuple[int, int], y: jax.Array, x: jax.Array
) -> jax.Array:
    """Takes the pixel nearest to each position; outside the image it reads zero.

    Halves are rounded to even, as in torch. NaN reads NaN. Arguments as for
    `read_bilinear`.

    Returns:
      `[P, C]`, in the pixels' dtype.
    """
    row, in_row = _inside(jnp.round(y), size[0])
    column, in_column = _inside(jnp.round(x), size[1])
    nearest = _take(pixels, row * size[1] + column)
    nearest = jnp.where((in_row & in_column)[:, None], nearest, 0)
    return jnp.where(jnp.isnan(x + y)[:, None], jnp.nan, nearest)


def _product(weight, corner, is_read):
    # Not by the weight alone: 0 times a pixel that is not finite is NaN.
    return jnp.where(is_read[:, None], weight[:, None] * corner, 0)


def _gradient(arguments, product, dy):
    """JAX's would mask `dy` as well, although the weight is 0 where nothing is read.

    A `dy` that is not finite makes the gradient NaN at the pixel next to its position.
    """
    del product
    weight, corner, is_read = arguments
    dweight = jnp.where(is_read, (corner * dy).sum(1), 0).astype(weight.dtype)
    return dweight, (weight[:, None] * dy).astype(corner.dtype), None


_weighed = with_gradient(_product, _gradient)


def _neighbours(position, size):
    """Two neighbours along one axis: the first one's index; weights; which are read.

    They are the pixels around the position, or the outermost ones of the image where
    the position is outside. An image of one pixel has only one.
    """
    low = jnp.floor(position)
    fraction = position - low
    first = jnp.clip(low, 0, core.max_dim(size - 2, 0))
    # Distance from the first neighbour to the pixel below the position. NaN fails all
    # comparisons, and so stays in the weights.
    off = low - first
    zero = jnp.zeros_like(fraction)
    rest = 1 - fraction
    in_first, in_second = ~((off < -1) | (off > 0)), ~((off < 0) | (off > 1))
    neighbours = (
        (jnp.where(in_first, jnp.where(off < 0, fraction, rest), zero), in_first),
        (jnp.where(in_second, jnp.where(off > 0, rest, fraction), zero), in_second),
    )
    return first.astype(jnp.int32), neighbours[: size if isinstance(size, int) else 2]


def _inside(pixel, size):
    """An index inside the image, and whether `pixel` is inside it."""
    index = jnp.clip(pixel.astype(jnp.int32), 0, size - 1)
    return index, (pixel >= 0) & (pixel <= size - 1)


def _take(pixels, index):
    # The indices are inside the image, so XLA need not check them.
    return pixels.at[index].get(mode="promise_in_bounds")
