"""Resizing, of whole images and of windows."""

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
    weighed,
)
from cnn_flax.layers.arguments import is_sequence
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
      size: height and width of the result, in pixels; a single number is the shorter
        side, keeping the aspect ratio.
      interpolation: "bilinear" or "nearest".
      antialias: whether to average over the area of each output pixel when
        downsampling, as Pillow does. "nearest" never does.

    Returns:
      `[N, H', W', C]`.

    Raises:
      ValueError: if `size` or `interpolation` is invalid.
    """
    height, width = jnp.shape(images)[-3:-1]
    sides = image_size(size)
    if not is_sequence(size):
        short = sides[0]
        if height <= width:
            sides = short, int(short * width / height)
        else:
            sides = int(short * height / width), short
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
    """Crops a window of each image and resizes it, as torchvision's `resized_crop`.

    The window lies inside the image, in whole pixels; `top`, `left`, `height` and
    `width` are each a number or one per image `[N]`. Pixels outside the window are not
    read.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      top: pixels above the window.
      left: pixels left of the window.
      height: of the window, in pixels.
      width: of the window, in pixels.
      size: height and width of the result, in pixels.
      interpolation: "bilinear" or "nearest".
      antialias: whether to average over the area of each output pixel when
        downsampling, as Pillow does. "nearest" never does.

    Returns:
      `[N, *size, C]`.

    Raises:
      ValueError: if a window extends outside the image, or `size` or `interpolation` is
        invalid.
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

    resize_rows = _nearest
    if interpolation == "bilinear":
        resize_rows = partial(_linear, antialias=antialias)

    def cut(image, top, left, height, width):
        # Rows, then columns as rows: whole rows are fast to read.
        image = resize_rows(image, top, height, size[0]).swapaxes(0, 1)
        return resize_rows(image, left, width, size[1]).swapaxes(0, 1)

    # Gathers under vmap keep N as a batch dimension.
    return materialize(jax.vmap(cut)(images, *box))


def _nearest(image, start, length, size):
    """Samples `size` evenly spaced rows of a window."""
    index = jnp.floor(jnp.arange(size) * (length / size)).astype(jnp.int32)
    return jnp.take(image, start + index, 0, mode="clip")


def _linear(image, start, length, size, antialias):
    """Resizes a window of rows to `size` rows: `[H, ...] -> [size, ...]`.

    An output row is the weighted mean of the window's rows around its centre. Weights
    fall linearly to 0 at a distance of one input row, or of one output row if that is
    larger and `antialias` is set.
    """
    extent = image.shape[0]
    scale = length / size
    radius = jnp.maximum(scale, 1.0) if antialias else 1.0
    taps = math.ceil(2 * max(extent / size, 1.0)) if antialias else 2
    centre = start + (jnp.arange(size) + 0.5) * scale
    first = jnp.floor(centre - radius + 0.5).astype(jnp.int32)
    index = first[:, None] + jnp.arange(taps)[None]
    triangle = 1 - jnp.abs(index + 0.5 - centre[:, None]) / radius
    inside = (index >= start) & (index < start + length)
    weights = jnp.where(inside, jnp.maximum(triangle, 0.0), 0.0)
    weights = (weights / weights.sum(1, keepdims=True)).astype(image.dtype)
    total = 0
    for tap in range(taps):
        weight = weights[:, tap].reshape(size, *[1] * (image.ndim - 1))
        row = jnp.take(image, index[:, tap], 0, mode="clip")
        total += weighed(weight, row)
    return jnp.asarray(total)


def _check_inside(window, lengths):
    for name, start, length, extent in (
        ("height", window[0], window[2], lengths[0]),
        ("width", window[1], window[3], lengths[1]),
    ):
        if isinstance(start, Tracer) or isinstance(length, Tracer):
            continue
        end = np.max(np.asarray(start) + np.asarray(length), initial=0)
        if end > extent:
            raise ValueError(
                f"A window ends at pixel {end} of images whose {name} is {extent}."
            )
