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
    total = 0
    for row, vertical in _neighbours(y, size[0]):
        if scale is not None:
            vertical *= scale
        for column, horizontal in _neighbours(x, size[1]):
            corner = _take(pixels, row * size[1] + column)
            total += (vertical * horizontal)[:, None] * corner
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
    """Indices and weights of the pixels below and above each position on one axis."""
    low = jnp.floor(position)
    part = position - low
    return _inside(low, 1 - part, size), _inside(low + 1, part, size)


def _inside(pixel, weight, size):
    """An index that exists, and the weight, which is zero where `pixel` does not."""
    outside = (pixel < 0) | (pixel > size - 1)
    index = jnp.clip(pixel.astype(jnp.int32), 0, size - 1)
    return index, jnp.where(outside, jnp.zeros_like(weight), weight)


def _take(pixels, index):
    # The indices were clipped: nothing is left for XLA to check.
    return pixels.at[index].get(mode="promise_in_bounds")
