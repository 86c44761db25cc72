"""Operations that paint over a window or add noise."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from cnn_flax.augment.arguments import image_operation, per_channel, per_image
from cnn_flax.augment.homography import Fill

__all__ = ["add_noise", "erase"]


def erase(
    images: jax.Array,
    top: ArrayLike,
    left: ArrayLike,
    height: ArrayLike,
    width: ArrayLike,
    value: Fill = 0,
) -> jax.Array:
    """Paints over a window, as torchvision's `erase`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      top: pixels above the window: a number, or one per image `[N]`. The window may
        extend beyond the image.
      left: pixels left of the window: a number, or one per image `[N]`.
      height: of the window: a number, or one per image `[N]`; 0 paints nothing.
      width: of the window: a number, or one per image `[N]`; 0 paints nothing.
      value: what to paint: a number, one per image `[N]`, a tuple with one of these per
        channel, or images of the shape of `images`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a shape does not fit, or `value` has another number of channels.
    """
    return _erase(images, (top, left, height, width), value)


@image_operation
def _erase(images, window, value):
    n, *lengths, channels = images.shape
    names = ("top", "left", "height", "width")
    top, left, height, width = (
        per_image(name, number, n) for name, number in zip(names, window, strict=True)
    )
    rows, columns = (
        (jnp.arange(length)[None] >= start[:, None])
        & (jnp.arange(length)[None] < (start + side)[:, None])
        for length, start, side in zip(
            lengths, (top, left), (height, width), strict=True
        )
    )
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(inside, _values(value, images), images)


def _values(value, images):
    if not isinstance(value, tuple) and jnp.ndim(value) >= 3:
        return jnp.asarray(value).reshape(images.shape)
    n, *_, channels = images.shape
    return per_channel("value", value, n, channels)[:, None, None]


@image_operation
def add_noise(images: jax.Array, noise: jax.Array) -> jax.Array:
    """`images + noise`, clipped to [0, 1].

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      noise: float, of the shape of `images`.

    Returns:
      The shape of `images`.
    """
    return jnp.clip(images + noise.reshape(images.shape), 0, 1)
