"""Preparing images as published weights require."""

import io
import math
import os
import pathlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Union

import numpy as np

from cnn_flax.info import ModelInfo
from cnn_flax.installing import install_command
from cnn_flax.published import PublishedWeights
from cnn_flax.weights.enlarging import enlarged_window, is_mostly_cut_off
from cnn_flax.weights.identify import IdentifiedWeights
from cnn_flax.weights.regular import check_regular

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "ImageError",
    "ImageLike",
    "allow_pixels",
    "is_grey",
    "open_image",
    "preprocess",
    "read_image",
    "to_8_bits",
    "why_unreadable",
]

ImageLike = Union["Image", np.ndarray, str, os.PathLike[str]]

_CHANNELS = (1, 3, 4)
_GREY = ("1", "L", "LA", "La")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# Pillow scales the pixels of PNG files of these depths so, but not the one colour that
# is transparent. Of colours with 16 bits the high byte is left to compare.
_SCALED_PNG = {
    "L;2": lambda value: value * 85,
    "L;4": lambda value: value * 17,
    "RGB;16B": lambda values: tuple(value >> 8 for value in values),
}


class ImageError(ValueError):
    """An image cannot be read, or cannot be converted to 8 bits per channel."""


def preprocess(
    entry: PublishedWeights | IdentifiedWeights | ModelInfo,
) -> Callable[[ImageLike], np.ndarray]:
    """Returns the function that prepares an image for a net with given weights.

    It prepares images as torchvision and timm do for evaluation: the short side is
    resized to `entry.resize` (both sides where `crop_mode` is "squash") with Pillow's
    antialiased filter; the central square of `entry.image_size` is cut out, scaled to
    [0, 1] and normalised with `mean` and `std`.

    The function takes a Pillow image, a path, or an array `uint8 [H, W]` or
    `[H, W, 1, 3 or 4]`. It applies the EXIF orientation, repeats grey, scales 16-bit
    grey to 8 bits, and composites transparent pixels over white (torchvision's and
    timm's loaders ignore orientation and transparency). It returns
    `float32 [image_size, image_size, 3]`; `np.stack` makes a batch.

    Args:
      entry: one of `model_info(name).weights`; or `model_info(name)` for the first of
        them, and for a model without any: resized to 8/7, bilinear, ImageNet's mean and
        standard deviation.

    Returns:
      The function. It raises `ImageError` if it cannot read the image.

    Raises:
      ImportError: if Pillow is not installed.
    """
    _require_pillow()
    from PIL import Image

    if isinstance(entry, ModelInfo) and entry.weights:
        entry = entry.weights[0]
    size = entry.image_size
    if isinstance(entry, ModelInfo):
        short, squash = math.floor(size / entry.crop_pct), False
    else:
        short, squash = entry.resize, entry.crop_mode == "squash"
    resample = Image.Resampling[entry.interpolation.upper()]
    mean, std = (np.asarray(x, np.float32) for x in (entry.mean, entry.std))

    def prepare(image: ImageLike) -> np.ndarray:
        pixels = read_image(image)
        width, height = pixels.size
        shortest = min(width, height)
        if squash:
            width, height = short, short
        else:
            width, height = width * short // shortest, height * short // shortest
        left, top = round((width - size) / 2), round((height - size) / 2)
        whole, window = (height, width), (top, left, size, size)
        if is_mostly_cut_off(pixels.size, whole, (size, size)):
            method = entry.interpolation
            cut = enlarged_window(np.asarray(pixels), whole, window, method)
        else:
            square = (left, top, left + size, top + size)
            cut = pixels.resize((width, height), resample).crop(square)
        return (np.asarray(cut, np.float32) / np.float32(255) - mean) / std

    return prepare


def _require_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Images are read with Pillow; install it: {install_command('cli')}."
        ) from error


def read_image(image: ImageLike) -> "Image":
    """Reads an image in mode RGB, as `preprocess` does.

    Raises:
      ImageError: if it cannot be read.
      ImportError: if Pillow is not installed.
    """
    _require_pillow()
    from PIL import Image, ImageOps

    if isinstance(image, np.ndarray):
        return to_8_bits(_from_array(image)).convert("RGB")
    if isinstance(image, Image.Image):
        return to_8_bits(ImageOps.exif_transpose(image)).convert("RGB")
    if not isinstance(image, str | os.PathLike):
        raise TypeError(
            "An image is a path, a Pillow image or a uint8 array, got "
            f"{type(image).__name__}."
        )
    try:
        check_regular(image)
        # As bytes: of a file, Pillow would make room for whatever size a field says.
        data = io.BytesIO(pathlib.Path(image).read_bytes())
        with open_image(data) as opened:
            return to_8_bits(ImageOps.exif_transpose(opened)).convert("RGB")
    except FileNotFoundError as error:
        raise ImageError(f"There is no image {image}.") from error
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from error
    # Pillow's decoders raise nearly anything on broken files.
    except Exception as error:
        reason = why_unreadable(error)
        raise ImageError(f"{image} cannot be read as an image: {reason}.") from error


def open_image(file: io.BytesIO) -> "Image":
    """Opens an image file with Pillow; HEIC too, where pillow-heif is installed.

    Raises:
      ImageError: for HEIC without pillow-heif, and for EPS, which only another program
        could run.
      Exception: whatever else Pillow raises; see `why_unreadable`.
    """
    from PIL import Image

    try:
        image = Image.open(file)
    except Image.UnidentifiedImageError:
        if not _is_heif(file):
            raise
        _register_heif()
        image = Image.open(file)
    if image.format == "EPS":  # Pillow would start Ghostscript.
        image.close()
        raise ImageError(
            "it is EPS, which is a program and not pixels: convert it to PNG first"
        )
    if image.format == "PNG" and "transparency" in image.info:
        raw_mode = image.tile[0][-1]
        if raw_mode in _SCALED_PNG:
            scale = _SCALED_PNG[raw_mode]
            image.info["transparency"] = scale(image.info["transparency"])
    return image


def allow_pixels(count: int) -> None:
    """Allows images of up to `count` pixels, if that is more than Pillow's limit.

    The limit is the process's. By default it is Pillow's, 178,956,970: a small file
    may unpack to any number of pixels, to fill the memory.
    """
    from PIL import Image

    if count > 2 * (Image.MAX_IMAGE_PIXELS or count):
        # Pillow warns from half the limit on.
        Image.MAX_IMAGE_PIXELS = -(-count // 2)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def _is_heif(file: io.BytesIO) -> bool:
    """Whether a file begins as an ISO media file with a brand of HEIF."""
    head = file.getvalue()[:12]
    return head[4:8] == b"ftyp" and head[8:] in _HEIF


def _register_heif() -> None:
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImageError(
            "it is HEIC, which needs another package: pip install pillow-heif"
        ) from error
    pillow_heif.register_heif_opener()


def why_unreadable(error: Exception) -> str:
    """What is wrong with an image, from the error that reading it raised."""
    from PIL import Image

    if isinstance(error, Image.UnidentifiedImageError):
        return "its format is not known"
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return (
            f"it has more than {limit:,} pixels; if you trust it, --max-pixels raises "
            "this limit (PIL.Image.MAX_IMAGE_PIXELS, half of it, in Python)"
        )
    return str(error) or type(error).__name__


def _from_array(pixels: np.ndarray) -> "Image":
    from PIL import Image

    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _CHANNELS)
    if pixels.dtype != np.uint8 or not fits or not pixels.size:
        raise ImageError(
            "An image is a uint8 array [H, W] or [H, W, 1, 3 or 4], got "
            f"{pixels.dtype} {list(pixels.shape)}."
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def to_8_bits(image: "Image") -> "Image":
    """Converts an image to mode L if it is grey, else to RGB, with 8 bits per channel.

    Palettes, CMYK and the like become RGB. Transparent pixels are composited over
    white, whether an alpha channel, a palette or one colour of the image says what is
    transparent. 16-bit grey is scaled to 8 bits, `round(value * 255 / 65535)`.

    Raises:
      ImageError: if its pixels have no fixed range (float, 32-bit).
    """
    from PIL import Image

    grey = is_grey(image)

    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        pixels = ((values * 255 + 32767) // 65535).astype(np.uint8)
        if (transparent := image.info.get("transparency")) is not None:
            pixels[values == transparent] = 255
        image = Image.fromarray(pixels)
    if image.mode in ("I", "F"):
        raise ImageError(f"Pixels of mode {image.mode} (32 bits) have no fixed range.")
    if image.mode == "La":  # Pillow converts it to nothing else.
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    mode = "L" if grey else "RGB"
    # `convert` copies even what it does not change.
    return image if image.mode == mode else image.convert(mode)


def is_grey(image: "Image") -> bool:
    """Whether an image has one channel, transparency aside."""
    return image.mode in _GREY or image.mode.startswith("I;16")
