"""From a file's bytes to pixels, and to the size that a net takes."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from cnn_flax.weights.preprocessing import is_grey, to_8_bits
from train.errors import UserError

__all__ = [
    "DecodeError",
    "Interpolation",
    "Least",
    "Pixels",
    "cut",
    "decode_image",
    "fit",
    "header_shape",
    "load_image",
    "read_image",
    "resize",
    "size_of",
    "to_array",
    "to_channels",
]

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
# The short side that an image is going to be scaled to, in pixels, or 0; or what gives
# it for the image's height and width.
Least = int | Callable[[int, int], int]
# `uint8 [h, w, C]`, or Pillow's image of the mode L or RGB. Between the two pixels are
# copied, while Python's other threads wait: a window is cut and resized before that.
Pixels = np.ndarray | Image.Image

# A JPEG is decoded so many times larger than needed: the resize that follows then hides
# that it was not decoded at full size.
_SPARE = 3


class DecodeError(UserError):
    """An image that cannot be read.

    Attributes:
      name: the file, or the image's name in its set.
      reason: what is wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be read as an image: {reason}")
        self.name = name
        self.reason = reason


def read_image(path: str | os.PathLike[str], least: Least = 0) -> np.ndarray:
    """The pixels of an image file, `uint8 [h, w, 1 or 3]`; see `decode_image`.

    Raises:
      DecodeError: the file is not there, not an image, or cut short.
    """
    return to_array(load_image(path, least))


def load_image(path: str | os.PathLike[str], least: Least = 0) -> Image.Image:
    """As `read_image`, Pillow's image."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DecodeError(str(path), error.strerror or str(error)) from error
    return decode_image(data, str(path), least)


def decode_image(data: bytes, name: str, least: Least = 0) -> Image.Image:
    """An encoded image (JPEG, PNG, WebP, ... what Pillow reads).

    The image is turned as its EXIF orientation says, and made grey or RGB as
    `cnn_flax.preprocess` makes it. Of an animation, the first frame.

    Args:
      data: the file's bytes.
      name: what to call the image in an error.
      least: short side, in pixels, that the image is going to be scaled to, or 0; or a
        function that gives it for the height and width before the image is turned. A
        JPEG of six times that or more (a camera's) is decoded at a half, a quarter or
        an eighth of its size, not under three times `least`: several times faster.

    Returns:
      Pillow's image of the mode L where it is grey, else RGB.

    Raises:
      DecodeError: the bytes are no image, cut short, or of a kind without a fixed range
        (float, 32-bit).
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if callable(least):
                least = least(image.height, image.width)
            if least:
                image.draft(None, _reduced(image.size, least))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return to_8_bits(image)
    # Broken files make Pillow's decoders raise nearly anything.
    except Exception as error:
        reason = "it is empty" if not data else _reason(error)
        raise DecodeError(name, reason) from error


def to_array(image: Pixels) -> np.ndarray:
    """The pixels, `uint8 [h, w, C]`."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _reduced(size: tuple[int, int], least: int) -> tuple[int, int]:
    """The smallest size at which to decode a JPEG; its proportions stay exact."""
    width, height = size
    for scale in (8, 4, 2):
        whole = width % scale == 0 and height % scale == 0
        if whole and min(size) >= scale * _SPARE * least:
            return width // scale, height // scale
    return size


def header_shape(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Height, width and channels of an image file, from its header alone.

    Raises:
      DecodeError: the file is not there or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            grey = is_grey(image)
    except Exception as error:
        raise DecodeError(str(path), _reason(error)) from error
    height, width = (width, height) if turned else (height, width)
    return height, width, 1 if grey else 3


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "its format is not known"
    return str(error) or type(error).__name__


def fit(
    image: Pixels,
    size: int,
    *,
    crop_pct: float = 1.0,
    method: Interpolation = "bilinear",
) -> np.ndarray:
    """Scales and crops an image to a square, keeping its proportions.

    The short side becomes `size / crop_pct` (antialiased, Pillow's filters), then the
    centre is cut out: torchvision's `Resize` and `CenterCrop`.

    Args:
      image: the pixels.
      size: side of the result, in pixels.
      crop_pct: share of the short side that is kept, in `(0, 1]`.
      method: the filter.

    Returns:
      `uint8 [size, size, C]`; the image itself where it has that size already and
      `crop_pct` is 1.
    """
    short = int(size / crop_pct)
    height, width = size_of(image)
    if (shortest := min(height, width)) != short:
        height, width = height * short // shortest, width * short // shortest
        image = resize(image, height, width, method)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return to_array(cut(image, top, left, size, size))


def size_of(image: Pixels) -> tuple[int, int]:
    """Height and width, in pixels."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return image.shape[0], image.shape[1]


def cut(image: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """A window, which lies in the image."""
    if isinstance(image, Image.Image):
        return image.crop((left, top, left + width, top + height))
    return image[top : top + height, left : left + width]


def resize(image: Pixels, height: int, width: int, method: Interpolation) -> np.ndarray:
    """Pillow's resize, antialiased: `uint8 [height, width, C]`."""
    if isinstance(image, Image.Image):
        filter_ = Image.Resampling[method.upper()]
        return to_array(image.resize((width, height), filter_))
    # It takes one, three or four channels, so others go singly.
    if image.shape[-1] == 3:
        return resize(Image.fromarray(image), height, width, method)
    planes = (np.ascontiguousarray(plane) for plane in np.moveaxis(image, -1, 0))
    return np.concatenate(
        [resize(Image.fromarray(plane), height, width, method) for plane in planes], -1
    )


def to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Grey to RGB by repetition, RGB to grey by luma: `[..., C] -> [..., channels]`.

    Args:
      images: `uint8 [..., C]`.
      channels: number of channels of the result.

    Returns:
      `uint8 [..., channels]`; luma is ITU-R 601's, rounded as Pillow rounds it.

    Raises:
      UserError: there is no way from C to `channels`.
    """
    have = images.shape[-1]
    if have == channels:
        return images
    if have == 1 and channels == 3:
        return np.repeat(images, channels, axis=-1)
    if have == 3 and channels == 1:
        red, green, blue = np.moveaxis(images.astype(np.uint32), -1, 0)
        luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
        return luma.astype(np.uint8)[..., None]
    raise UserError(f"images have {have} channels, but the net takes {channels}")
