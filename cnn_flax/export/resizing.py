"""Resizing and the central crop of evaluation, as an array program.

Both are products with matrices of filter weights, whose entries the program computes
from the image's size, which may be known only when it runs.
"""

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["resized_to_centre"]

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}  # Pixels from the filter's centre.


def resized_to_centre(
    images: jax.Array, short: int, size: int, *, interpolation: str, squash: bool
) -> jax.Array:
    """Resizes images and cuts out the central square, as `cnn_flax.preprocess` does.

    The filter is Pillow's antialiased one, applied to rows, then to columns, with the
    result of each rounded to a level. Pillow's weights are fixed-point numbers, so few
    values differ from its by one level.

    Args:
      images: uint8 `[N, H, W, C]`; H and W may be symbolic.
      short: short side after resizing, in pixels; both sides with `squash`.
      size: height and width of the square, in pixels; at most `short`.
      interpolation: "bilinear" or "bicubic".
      squash: whether to change the aspect ratio.

    Returns:
      float32 `[N, size, size, C]`, whole numbers in [0, 255].
    """
    height, width = (jnp.asarray(n, jnp.int32) for n in images.shape[1:3])
    shortest = jnp.minimum(height, width)

    def weights(length: jax.Array, count: int) -> jax.Array:
        whole = jnp.asarray(short) if squash else lax.div(length * short, shortest)
        return _weights(length, count, whole, size, interpolation)

    x = images.astype(jnp.float32)
    across = weights(width, images.shape[2])
    x = _level(jnp.einsum("sw,nhwc->nhsc", across, x, precision="highest"))
    down = weights(height, images.shape[1])
    return _level(jnp.einsum("sh,nhwc->nswc", down, x, precision="highest"))


def _level(x: jax.Array) -> jax.Array:
    return jnp.floor(jnp.clip(x, 0, 255) + 0.5)


def _weights(length, count, whole, size, interpolation):
    """Weights `[size, count]` of the pixels of one axis in those of the square.

    Args:
      length: pixels of the axis, as an array.
      count: the same as a dimension.
      whole: pixels of the axis after resizing.
      size: pixels of the square.
      interpolation: the filter.
    """
    # As Python's `round`, halves to even.
    first = jnp.round((whole - size).astype(jnp.float32) / 2)
    scale = length.astype(jnp.float32) / whole.astype(jnp.float32)
    centre = (first + jnp.arange(size, dtype=jnp.float32) + 0.5) * scale
    pixel = jnp.arange(count, dtype=jnp.float32) + 0.5
    stretch = jnp.maximum(scale, 1.0)
    distance = jnp.abs(pixel[None, :] - centre[:, None]) / stretch
    weight = jnp.where(
        distance < _SUPPORT[interpolation], _FILTERS[interpolation](distance), 0.0
    )
    return weight / weight.sum(1, keepdims=True)


def _triangle(x):
    return 1.0 - x


def _cubic(x):
    """Keys's kernel with a = -0.5, as Pillow's."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x < 1.0, near, far)


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}
