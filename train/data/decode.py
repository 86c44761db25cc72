"""Decodes image files, and resizes images to a model's input."""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from cnn_flax.weights.enlarging import enlarged_window, is_mostly_cut_off
from cnn_flax.weights.preprocessing import (
    is_grey,
    open_image,
    to_8_bits,
    why_unreadable,
)
from cnn_flax.weights.regular import check_regular
from train.errors import UserError

__all__ = [
    "CropMode",
    "DecodeError",
    "Interpolation",
    "Pixels",
    "TargetSide",
    "crop",
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
CropMode = Literal["center", "squash"]
# The short side, in pixels, that an image will be resized to; 0 if it is not known; or
# a function of the image's height and width, as it is shown, that returns it.
TargetSide = int | Callable[[int, int], int]
# `uint8 [h, w, C]`, or a Pillow image of mode L or RGB. Converting one to the other
# copies the pixels and holds the GIL, so images are cropped and resized first.
Pixels = np.ndarray | Image.Image

# A JPEG is decoded at no less than this many times the target side: the resize that
# follows then hides that it was not decoded at full size.
_OVERSAMPLING = 3


# What ends a line, for `str.splitlines`.
_BREAKS = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


class DecodeError(UserError):
    """An image that cannot be read.

    Attributes:
      name: the file, or the name of the image in its set.
      reason: what is wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        # Files may have such names.
        shown = _BREAKS.sub(lambda found: repr(found[0])[1:-1], name)
        super().__init__(f"{shown} cannot be read as an image: {reason}")
        self.name = name
        self.reason = reason


def read_image(path: str | os.PathLike[str], target_side: TargetSide = 0) -> np.ndarray:
    """Reads an image file as `uint8 [h, w, 1 or 3]`; see `decode_image`.

    Raises:
      DecodeError: if the file does not exist, is not an image, or is truncated.
    """
    return to_array(load_image(path, target_side))


def load_image(
    path: str | os.PathLike[str], target_side: TargetSide = 0
) -> Image.Image:
    """Same as `read_image`, but returns a Pillow image."""
    try:
        check_regular(path)
        data = Path(path).read_bytes()
    except OSError as error:
        raise DecodeError(str(path), error.strerror or str(error)) from error
    return decode_image(data, str(path), target_side)


def decode_image(data: bytes, name: str, target_side: TargetSide = 0) -> Image.Image:
    """Decodes an image: JPEG, PNG, WebP, ..., whatever Pillow reads.

    The image is rotated according to its EXIF orientation, and converted to grey or RGB
    as in `cnn_flax.preprocess`. Animations give their first frame.

    Args:
      data: the file's bytes.
      name: the image's name in error messages.
      target_side: short side, in pixels, that the image will be resized to, or 0; or a
        function that returns it for the image's height and width, after rotation. A
        JPEG of at least six times that size (a camera's) is decoded at a half, a
        quarter or an eighth of its size, but at no less than three times `target_side`:
        several times faster.

    Returns:
      A Pillow image of mode L if it is grey, else RGB.

    Raises:
      DecodeError: if the bytes are not an image, are truncated, or are of a type
        without a fixed range (float, 32-bit).
    """
    try:
        with open_image(io.BytesIO(data)) as image:
            if callable(target_side):
                target_side = target_side(*_shown_size(image))
            if target_side:
                image.draft(None, _reduced_size(image.size, target_side))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return to_8_bits(image)
    # On damaged files Pillow's decoders raise nearly anything.
    except Exception as error:
        reason = "it is empty" if not data else why_unreadable(error)
        raise DecodeError(name, reason) from error


def to_array(image: Pixels) -> np.ndarray:
    """The pixels, `uint8 [h, w, C]`."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _reduced_size(size: tuple[int, int], target_side: int) -> tuple[int, int]:
    """The smallest size at which to decode a JPEG; the aspect ratio stays exact."""
    width, height = size
    for scale in (8, 4, 2):
        divides = width % scale == 0 and height % scale == 0
        if divides and min(size) >= scale * _OVERSAMPLING * target_side:
            return width // scale, height // scale
    return size


def header_shape(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Height, width and channels of an image file, from its header alone.

    Raises:
      DecodeError: if the file does not exist or is not an image.
    """
    try:
        check_regular(path)
        with open_image(io.BytesIO(Path(path).read_bytes())) as image:
            return *_shown_size(image), 1 if is_grey(image) else 3
    except Exception as error:
        raise DecodeError(str(path), why_unreadable(error)) from error


def _shown_size(image: Image.Image) -> tuple[int, int]:
    """Height and width after rotation according to the EXIF orientation."""
    # Pillow rotates TIFF itself: newer versions give the rotated size before loading.
    tags = getattr(image, "tag_v2", {})
    width = tags.get(ExifTags.Base.ImageWidth, image.width)
    height = tags.get(ExifTags.Base.ImageLength, image.height)
    is_turned = image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
    return (width, height) if is_turned else (height, width)


def fit(
    image: Pixels,
    size: int,
    *,
    crop_pct: float = 1.0,
    method: Interpolation = "bilinear",
    mode: CropMode = "center",
) -> np.ndarray:
    """Resizes an image, and crops the central square.

    The short side becomes `size / crop_pct` (Pillow's filters, antialiased), and the
    aspect ratio stays: the same as torchvision's `Resize` and `CenterCrop`.

    Args:
      image: the pixels.
      size: side of the result, in pixels.
      crop_pct: share of the short side that the crop keeps, in `(0, 1]`.
      method: the filter.
      mode: "squash" makes the long side `size / crop_pct` as well, so that the aspect
        ratio does not stay, as timm's "squash".

    Returns:
      `uint8 [size, size, C]`; the image unchanged if it has that size and `crop_pct`
      is 1.
    """
    short = int(size / crop_pct)
    original = height, width = size_of(image)
    if mode == "squash":
        height = width = short
    elif (shortest := min(height, width)) != short:
        height, width = height * short // shortest, width * short // shortest
    top, left = round((height - size) / 2), round((width - size) / 2)
    if is_mostly_cut_off(original, (height, width), (size, size)):
        window = (top, left, size, size)
        return enlarged_window(to_array(image), (height, width), window, method)
    if (height, width) != original:
        image = resize(image, height, width, method)
    return to_array(crop(image, top, left, size, size))


def size_of(image: Pixels) -> tuple[int, int]:
    """Height and width, in pixels."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return image.shape[0], image.shape[1]


def crop(image: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """A window of an image; it must lie inside it."""
    if isinstance(image, Image.Image):
        return image.crop((left, top, left + width, top + height))
    return image[top : top + height, left : left + width]


def resize(image: Pixels, height: int, width: int, method: Interpolation) -> np.ndarray:
    """Pillow's antialiased resize: `uint8 [height, width, C]`."""
    if isinstance(image, Image.Image):
        filter_ = Image.Resampling[method.upper()]
        return to_array(image.resize((width, height), filter_))
    # Pillow takes images of 1, 3 or 4 channels only: others are resized per channel.
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
      `uint8 [..., channels]`; luma is ITU-R 601's, with Pillow's rounding.

    Raises:
      UserError: if C channels cannot be converted to `channels`.
    """
    current = images.shape[-1]
    if current == channels:
        return images
    if current == 1 and channels == 3:
        return np.repeat(images, channels, axis=-1)
    if current == 3 and channels == 1:
        red, green, blue = np.moveaxis(images.astype(np.uint32), -1, 0)
        luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
        return luma.astype(np.uint8)[..., None]
    raise UserError(f"images have {current} channels, but the model takes {channels}")
