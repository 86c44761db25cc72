"""Operations that change the number of pixels."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from cnn_flax.augment.arguments import (
    check_interpolation,
    image_operation,
    image_size,
    per_image,
)
from cnn_flax.layers.cpu.materialize import materialize

__all__ = ["resize", "resized_crop"]


def resize(
    images: jax.Array,
    size: int | tuple[int, int],
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> jax.Array:
    """Resizes each image, as torchvision's `resize`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      size: height and width of the result, in pixels; one number is its shorter side,
        and the longer one follows.
      interpolation: "bilinear", or "nearest".
      antialias: whether an image that shrinks is averaged over what a pixel of the
        result covers, as in Pillow. "nearest" takes single pixels anyway.

    Returns:
      `[N, H', W', C]`.

    Raises:
      ValueError: if `size` or `interpolation` is none.
    """
    height, width = jnp.shape(images)[-3:-1]
    sides = image_size(size)
    if isinstance(size, int):
        if height <= width:
            sides = size, int(size * width / height)
        else:
            sides = int(size * height / width), size
    return resized_crop(images, 0, 0, height, width, sides, interpolation, antialias)


def resized_crop(
    images: jax.Array,
    top: ArrayLike,
    left: ArrayLike,
    height: ArrayLike,
    width: ArrayLike,
    size: int | tuple[int, int],
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> jax.Array:
    """Cuts a window out of each image and resizes it, as torchvision's `resized_crop`.

    Nothing outside the window is looked at. The window's numbers are whole, and each
    may be one an image, `[N]`; the window lies in the image.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      top: pixels above the window.
      left: pixels left of it.
      height: of the window, in pixels.
      width: of the window, in pixels.
      size: height and width of the result, in pixels.
      interpolation: "bilinear", or "nearest".
      antialias: whether a window that shrinks is averaged over what a pixel of the
        result covers, as in Pillow. "nearest" takes single pixels anyway.

    Returns:
      `[N, *size, C]`.

    Raises:
      ValueError: if a window lies outside, or `size` or `interpolation` is none.
    """
    sides = image_size(size)
    check_interpolation(interpolation)
    window = (top, left, height, width)
    return _resized_crop(images, window, sides, interpolation, antialias)


@image_operation
def _resized_crop(images, window, size, interpolation, antialias):
    n, *lengths, _ = images.shape
    names = ("top", "left", "height", "width")
    box = [
        per_image(name, value, n, low=0 if name in names[:2] else 1).astype(jnp.int32)
        for name, value in zip(names, window, strict=True)
    ]
    _check_inside(window, lengths)

    spread = _nearest
    if interpolation == "bilinear":
        spread = partial(_spread, antialias=antialias)

    def cut(image, top, left, height, width):
        # Rows, then columns as rows: whole rows are fast to read.
        image = spread(image, top, height, size[0]).swapaxes(0, 1)
        return spread(image, left, width, size[1]).swapaxes(0, 1)

    # Gathers under vmap keep N as a batch dimension.
    return materialize(jax.vmap(cut)(images, *box))


def _nearest(image, start, length, size):
    """Takes `size` rows, evenly from a window on."""
    index = jnp.floor(jnp.arange(size) * (length / size)).astype(jnp.int32)
    return jnp.take(image, start + index, 0, mode="clip")


def _spread(image, start, length, size, antialias):
    """Spreads a window of rows over `size` rows: `[H, ...] -> [size, ...]`.

    A row of the result lies at the middle of what it covers. Rows of the window weigh
    by their nearness to it, up to the distance of one row, or of one of the result
    where that is larger; the weights sum to 1.
    """
    extent = image.shape[0]
    scale = length / size
    reach = jnp.maximum(scale, 1.0) if antialias else 1.0
    taps = math.ceil(2 * max(extent / size, 1.0)) if antialias else 2
    middle = start + (jnp.arange(size) + 0.5) * scale
    first = jnp.floor(middle - reach + 0.5).astype(jnp.int32)
    index = first[:, None] + jnp.arange(taps)[None]
    nearness = 1 - jnp.abs(index + 0.5 - middle[:, None]) / reach
    inside = (index >= start) & (index < start + length)
    weights = jnp.where(inside, jnp.maximum(nearness, 0.0), 0.0)
    weights = (weights / weights.sum(1, keepdims=True)).astype(image.dtype)
    total = 0
    for tap in range(taps):
        share = weights[:, tap].reshape(size, *[1] * (image.ndim - 1))
        total += share * jnp.take(image, index[:, tap], 0, mode="clip")
    return jnp.asarray(total)


def _check_inside(window, lengths):
    for name, start, length, extent in (
        ("height", window[0], window[2], lengths[0]),
        ("width", window[1], window[3], lengths[1]),
    ):
        if isinstance(start, Tracer) or isinstance(length, Tracer):
            continue
        end = np.max(np.asarray(start) + np.asarray(length))
        if end > extent:
            raise ValueError(
                f"A window ends at pixel {end} of images whose {name} is {extent}."
            )
