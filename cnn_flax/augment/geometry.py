"""Geometric operations: flips, crops, affine moves and perspective."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from cnn_flax.augment import fusion_registry, homography
from cnn_flax.augment.arguments import (
    Pair,
    image_operation,
    image_size,
    per_image,
    per_pixel,
)
from cnn_flax.augment.homography import Fill, warp

__all__ = [
    "affine",
    "center_crop",
    "crop",
    "horizontal_flip",
    "perspective",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "vertical_flip",
]


@fusion_registry.as_homography(
    lambda size, where=True: homography.flip_matrix(size, horizontal=where)
)
def horizontal_flip(images: jax.Array, where: ArrayLike = True) -> jax.Array:
    """Flips left to right, as torchvision's `horizontal_flip`.

    Args:
      images: float `[N, H, W, C]` or `[H, W, C]`.
      where: whether to flip: a bool, or one per image `[N]`.

    Returns:
      The shape of `images`.

    Example:
      >>> image = jnp.array([0.0, 0.5, 1.0]).reshape(1, 3, 1)
      >>> cnn_flax.augment.horizontal_flip(image).ravel().tolist()
      [1.0, 0.5, 0.0]
    """
    return _flip(images, where, -2)


@fusion_registry.as_homography(
    lambda size, where=True: homography.flip_matrix(size, vertical=where)
)
def vertical_flip(images: jax.Array, where: ArrayLike = True) -> jax.Array:
    """Flips upside down, as torchvision's `vertical_flip`. See `horizontal_flip`."""
    return _flip(images, where, -3)


@image_operation
def _flip(images, where, axis):
    if isinstance(where, bool):
        return jnp.flip(images, axis) if where else images
    where = per_image("where", where, len(images)) > 0
    return jax.lax.platform_dependent(
        images,
        where,
        cpu=partial(_flip_by_gather, axis=axis),
        default=lambda images, where: jnp.where(
            per_pixel(where), jnp.flip(images, axis), images
        ),
    )


def _flip_by_gather(images, where, axis):
    # One gather: XLA's CPU backend would compute the input twice, once per branch.
    positions = jnp.arange(images.shape[axis])

    def read(image, where):
        index = jnp.where(where, positions[::-1], positions)
        return jnp.take(image, index, axis, mode="clip")

    return jax.vmap(read)(images, where)


@fusion_registry.as_homography(
    lambda _, top, left, height, width: homography.crop_matrix(top, left), fill=0
)
def crop(
    images: jax.Array, top: ArrayLike, left: ArrayLike, height: int, width: int
) -> jax.Array:
    """Crops a window of each image, with 0 outside the image, as torchvision's `crop`.

    Args:
      images: float `[N, H, W, C]` or `[H, W, C]`.
      top: pixels above the window: a whole number, or one per image `[N]`.
      left: pixels left of the window: a whole number, or one per image `[N]`.
      height: of the window, in pixels.
      width: of the window, in pixels.

    Returns:
      `[N, height, width, C]`.

    Raises:
      ValueError: if the window is empty.
    """
    return _crop(images, top, left, *image_size((height, width)))


@image_operation
def _crop(images, top, left, height, width):
    if isinstance(top, int) and isinstance(left, int):
        return _cut(_cut(images, 1, top, height), 2, left, width)
    n = len(images)
    starts = [
        per_image(name, start, n).astype(jnp.int32)
        for name, start in (("top", top), ("left", left))
    ]

    def cut(image, top, left):
        # Rows, then columns; under vmap both gathers keep N as a batch dimension.
        return _take(_take(image, 0, top, height), 1, left, width)

    return jax.vmap(cut)(images, *starts)


def _cut(images, axis, start, size):
    """Crops the same window of all images along one axis."""
    length = images.shape[axis]
    low, high = max(start, 0), min(start + size, length)
    if low >= high:
        low, high = 0, 0
    window = jax.lax.slice_in_dim(images, low, high, axis=axis)
    before = min(max(-start, 0), size)
    padding = [(0, 0)] * images.ndim
    padding[axis] = (before, size - before - (high - low))
    return jnp.pad(window, padding)


def _take(image, axis, start, size):
    """Crops a window along one axis from a traced start."""
    index = start + jnp.arange(size)
    inside = (index >= 0) & (index < image.shape[axis])
    shape = [1] * image.ndim
    shape[axis] = size
    return jnp.where(
        inside.reshape(shape), jnp.take(image, index, axis, mode="clip"), 0
    )


def center_crop(images: jax.Array, size: int | tuple[int, int]) -> jax.Array:
    """Crops the centre of each image, as torchvision's `center_crop`.

    Args:
      images: float `[N, H, W, C]` or `[H, W, C]`.
      size: height and width of the window, in pixels. Smaller images are padded with
        zeros.

    Returns:
      `[N, *size, C]`.
    """
    sides = image_size(size)
    lengths = images.shape[-3:-1]
    # As torchvision: a crop's half pixel rounds to even, a padding's odd pixel goes to
    # the bottom and right.
    top, left = (
        round((length - side) / 2) if length >= side else -((side - length) // 2)
        for length, side in zip(lengths, sides, strict=True)
    )
    return crop(images, top, left, *sides)


@fusion_registry.as_homography(homography.rotation_matrix)
def rotate(
    images: jax.Array,
    degrees: ArrayLike,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Rotates counter-clockwise about the centre, as torchvision's `rotate`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      degrees: a number, or one per image `[N]`. Quarter turns of a square are exact.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image; see `homography.warp`.

    Returns:
      The shape of `images`.
    """
    return _transform(
        images,
        lambda size, n: homography.rotation_matrix(
            size, per_image("degrees", degrees, n)
        ),
        interpolation,
        fill,
    )


@fusion_registry.as_homography(homography.affine_matrix)
def affine(
    images: jax.Array,
    angle: ArrayLike = 0.0,
    translate: Pair = (0.0, 0.0),
    scale: ArrayLike = 1.0,
    shear: Pair = (0.0, 0.0),
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Shears, scales, rotates and translates, as torchvision's `affine`.

    All numeric arguments may be per-image, `[N]`. All but `translate` act about the
    centre.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      angle: degrees, clockwise: as in torchvision, opposite to `rotate`.
      translate: pixels right and down.
      scale: above 0; 2 doubles the size of objects.
      shear: degrees along x and along y.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image; see `homography.warp`.

    Returns:
      The shape of `images`.
    """

    def matrix(size, n):
        return homography.affine_matrix(
            size,
            per_image("angle", angle, n),
            _pair("translate", translate, n),
            per_image("scale", scale, n, low=float(np.finfo(np.float32).tiny)),
            _pair("shear", shear, n),
        )

    return _transform(images, matrix, interpolation, fill)


@fusion_registry.as_homography(
    lambda size, degrees: homography.shear_matrix(size, x=degrees)
)
def shear_x(
    images: jax.Array,
    degrees: ArrayLike,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Shears along x about the upper left corner, as in the policies.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      degrees: a number, or one per image `[N]`, in (-90, 90); torchvision's `affine`
        with `shear=(degrees, 0)` and `center=(0, 0)`.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image; see `homography.warp`.

    Returns:
      The shape of `images`.
    """
    return _transform(
        images,
        lambda size, n: homography.shear_matrix(
            size, x=per_image("degrees", degrees, n)
        ),
        interpolation,
        fill,
    )


@fusion_registry.as_homography(
    lambda size, degrees: homography.shear_matrix(size, y=degrees)
)
def shear_y(
    images: jax.Array,
    degrees: ArrayLike,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Shears along y about the upper left corner. See `shear_x`."""
    return _transform(
        images,
        lambda size, n: homography.shear_matrix(
            size, y=per_image("degrees", degrees, n)
        ),
        interpolation,
        fill,
    )


@fusion_registry.as_homography(
    lambda _, pixels: homography.translation_matrix(x=pixels)
)
def translate_x(
    images: jax.Array,
    pixels: ArrayLike,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Translates to the right.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      pixels: a number, or one per image `[N]`.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image; see `homography.warp`.

    Returns:
      The shape of `images`.
    """
    return _transform(
        images,
        lambda _, n: homography.translation_matrix(x=per_image("pixels", pixels, n)),
        interpolation,
        fill,
    )


@fusion_registry.as_homography(
    lambda _, pixels: homography.translation_matrix(y=pixels)
)
def translate_y(
    images: jax.Array,
    pixels: ArrayLike,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Translates down. See `translate_x`."""
    return _transform(
        images,
        lambda _, n: homography.translation_matrix(y=per_image("pixels", pixels, n)),
        interpolation,
        fill,
    )


@fusion_registry.as_homography(
    lambda _, startpoints, endpoints: homography.perspective_matrix(
        startpoints, endpoints
    )
)
def perspective(
    images: jax.Array,
    startpoints: ArrayLike,
    endpoints: ArrayLike,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Maps four points of the image to four others, as torchvision's `perspective`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      startpoints: `[4, 2]` or `[N, 4, 2]`, (x, y) in pixels, in order around the
        quadrilateral, no three of them collinear.
      endpoints: where these points are mapped to, `[4, 2]` or `[N, 4, 2]`.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image; see `homography.warp`.

    Returns:
      The shape of `images`.
    """
    return _transform(
        images,
        lambda *_: homography.perspective_matrix(startpoints, endpoints),
        interpolation,
        fill,
    )


def _transform(
    images: jax.Array,
    matrix: Callable[[tuple[int, int], int], jax.Array],
    interpolation: str,
    fill: Fill,
) -> jax.Array:
    """Warps by the matrix that `matrix` builds from (H, W) and N."""
    images = jnp.asarray(images)
    n = len(images) if images.ndim == 4 else 1
    size = images.shape[-3], images.shape[-2]
    return warp(images, matrix(size, n), None, interpolation, fill)


def _pair(name, values, n):
    first, second = values
    return per_image(name, first, n), per_image(name, second, n)
