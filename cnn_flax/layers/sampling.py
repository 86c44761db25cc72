"""Reading an image between its pixels."""

import jax
import jax.numpy as jnp

__all__ = ["read_bilinear", "read_nearest"]


def read_bilinear(
    pixels: jax.Array,
    size: tuple[int, int],
    y: jax.Array,
    x: jax.Array,
    scale: jax.Array | None = None,
) -> jax.Array:
    """Weighs the four pixels around each position; those outside weigh zero.

    Positions may lie anywhere: far outside and at infinity they read zero. One that is
    not a number reads what is not a number.

    Args:
      pixels: `[H * W, C]`, one image in row-major order. A batch comes by `jax.vmap`;
        flat `[N * H * W, C]` would be gathered whole on every device.
      size: (H, W).
      y: `[P]` vertical positions, in pixels; 0 is the centre of the first one.
      x: `[P]` horizontal positions, in pixels.
      scale: `[P]` factors of the values, or None.

    Returns:
      `[P, C]`, in the wider of the dtypes of pixels and positions.
    """
    row, vertical = _neighbours(y, size[0])
    column, horizontal = _neighbours(x, size[1])
    # One place for all four corners: on a CPU their indices cost more than the pixels.
    first = row * size[1] + column
    total = 0
    for down, share in enumerate(vertical):
        if scale is not None:
            share *= scale
        for right, part in enumerate(horizontal):
            corner = _take(pixels, first + (down * size[1] + right))
            total += (share * part)[:, None] * corner
    return jnp.asarray(total)


def read_nearest(
    pixels: jax.Array, size: tuple[int, int], y: jax.Array, x: jax.Array
) -> jax.Array:
    """Takes the pixel nearest to each position; outside the image it reads zero.

    Halves are rounded to even numbers, as torch does. Arguments as in `read_bilinear`.

    Returns:
      `[P, C]`, in the pixels' dtype.
    """
    one = jnp.ones((), pixels.dtype)
    row, vertical = _inside(jnp.round(y), one, size[0])
    column, horizontal = _inside(jnp.round(x), one, size[1])
    return (vertical * horizontal)[:, None] * _take(pixels, row * size[1] + column)


def _neighbours(position, size):
    """Two neighbours on one axis: the first one's index, and the weights of both.

    They are those around the position, or the outermost ones of the image where it is
    outside; of an image of one pixel there is but one.
    """
    low = jnp.floor(position)
    part = position - low
    first = jnp.clip(low, 0, max(size - 2, 0))
    # Pixels from the first one to the one below the position. What is not a number is
    # on neither side, and stays in the weights.
    off = low - first
    zero = jnp.zeros_like(part)
    weights = (
        jnp.where((off < -1) | (off > 0), zero, jnp.where(off < 0, part, 1 - part)),
        jnp.where((off < 0) | (off > 1), zero, jnp.where(off > 0, 1 - part, part)),
    )
    return first.astype(jnp.int32), weights[:size]


def _inside(pixel, weight, size):
    """An index that exists, and the weight, which is zero where `pixel` does not."""
    outside = (pixel < 0) | (pixel > size - 1)
    index = jnp.clip(pixel.astype(jnp.int32), 0, size - 1)
    return index, jnp.where(outside, jnp.zeros_like(weight), weight)


def _take(pixels, index):
    # The indices are in the image: nothing is left for XLA to check.
    return pixels.at[index].get(mode="promise_in_bounds")
