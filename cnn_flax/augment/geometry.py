"""Operations that move pixels."""

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
    """Mirrors left and right, as torchvision's `horizontal_flip`.

    Args:
      images: float `[N, H, W, C]` or `[H, W, C]`.
      where: which images, `[N]`, or whether.

    Returns:
      The shape of `images`.
    """
    return _flip(images, where, -2)


@fusion_registry.as_homography(
    lambda size, where=True: homography.flip_matrix(size, vertical=where)
)
def vertical_flip(images: jax.Array, where: ArrayLike = True) -> jax.Array:
    """Mirrors up and down, as torchvision's `vertical_flip`. See `horizontal_flip`."""
    return _flip(images, where, -3)


@image_operation
def _flip(images, where, axis):
    if isinstance(where, bool):
        return jnp.flip(images, axis) if where else images
    where = per_image("where", where, len(images)) > 0
    return jax.lax.platform_dependent(
        images,
        where,
        cpu=partial(_read_backwards, axis=axis),
        default=lambda images, where: jnp.where(
            per_pixel(where), jnp.flip(images, axis), images
        ),
    )


def _read_backwards(images, where, axis):
    # One reading of what XLA's CPU backend computes anew for each.
    places = jnp.arange(images.shape[axis])

    def read(image, where):
        index = jnp.where(where, places[::-1], places)
        return jnp.take(image, index, axis, mode="clip")

    return jax.vmap(read)(images, where)


@fusion_registry.as_homography(
    lambda _, top, left, height, width: homography.crop_matrix(top, left), fill=0
)
def crop(
    images: jax.Array, top: ArrayLike, left: ArrayLike, height: int, width: int
) -> jax.Array:
    """Cuts a window out of each image; what lies outside is 0, as torchvision's `crop`.

    Args:
      images: float `[N, H, W, C]` or `[H, W, C]`.
      top: pixels above the window: a whole number, or one an image `[N]`.
      left: pixels left of it, likewise.
      height: of the window, in pixels.
      width: of the window, in pixels.

    Returns:
      `[N, height, width, C]`.

    Raises:
      ValueError: if the window has no pixel.
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
    """A window on one axis that is the same in all images."""
    length = images.shape[axis]
    low, high = max(start, 0), min(start + size, length)
    if low >= high:
        low, high = 0, 0
    kept = jax.lax.slice_in_dim(images, low, high, axis=axis)
    before = min(max(-start, 0), size)
    padding = [(0, 0)] * images.ndim
    padding[axis] = (before, size - before - (high - low))
    return jnp.pad(kept, padding)


def _take(image, axis, start, size):
    """A window on one axis that begins at a traced place."""
    index = start + jnp.arange(size)
    inside = (index >= 0) & (index < image.shape[axis])
    shape = [1] * image.ndim
    shape[axis] = size
    return jnp.where(
        inside.reshape(shape), jnp.take(image, index, axis, mode="clip"), 0
    )


def center_crop(images: jax.Array, size: int | tuple[int, int]) -> jax.Array:
    """Cuts the middle out of each image, as torchvision's `center_crop`.

    Args:
      images: float `[N, H, W, C]` or `[H, W, C]`.
      size: height and width of the window, in pixels. An image that is smaller gets
        zeros around.

    Returns:
      `[N, *size, C]`.
    """
    sides = image_size(size)
    lengths = images.shape[-3:-1]
    # torchvision rounds the half pixel of a cut to even, and puts that of a border
    # behind.
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
    """Turns counter-clockwise about the centre, as torchvision's `rotate`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      degrees: a number, or one an image `[N]`. Quarter turns of a square are exact.
      interpolation: "bilinear", or "nearest".
      fill: what lies outside, corner by corner, as in `homography.warp`.

    Returns:
      The shape of `images`.
    """
    return _moved(
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
    """Shears, scales, turns and moves, as torchvision's `affine`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      angle: degrees, clockwise (as torchvision's, the other way round than `rotate`).
      translate: pixels right and down.
      scale: above 0; 2 shows things twice as large.
      shear: degrees along x and along y.
      interpolation: "bilinear", or "nearest".
      fill: what lies outside, corner by corner, as in `homography.warp`.

    Every number may be one an image, `[N]`; all but `translate` work about the centre.

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

    return _moved(images, matrix, interpolation, fill)


@fusion_registry.as_homography(
    lambda size, degrees: homography.shear_matrix(size, x=degrees)
)
def shear_x(
    images: jax.Array,
    degrees: ArrayLike,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Shears along x about the upper left corner, as the policies do.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      degrees: a number, or one an image `[N]`, in (-90, 90); torchvision's `affine`
        with `shear=(degrees, 0)` and `center=(0, 0)`.
      interpolation: "bilinear", or "nearest".
      fill: what lies outside, corner by corner, as in `homography.warp`.

    Returns:
      The shape of `images`.
    """
    return _moved(
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
    return _moved(
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
    """Moves right.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      pixels: a number, or one an image `[N]`.
      interpolation: "bilinear", or "nearest".
      fill: what lies outside, corner by corner, as in `homography.warp`.

    Returns:
      The shape of `images`.
    """
    return _moved(
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
    """Moves down. See `translate_x`."""
    return _moved(
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
    """Brings four points of the image to four others, as torchvision's `perspective`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      startpoints: `[4, 2]` or `[N, 4, 2]`, (x, y) in pixels, in order around the
        quadrilateral, no three of them in a line.
      endpoints: where they come to, likewise.
      interpolation: "bilinear", or "nearest".
      fill: what lies outside, corner by corner, as in `homography.warp`.

    Returns:
      The shape of `images`.
    """
    return _moved(
        images,
        lambda *_: homography.perspective_matrix(startpoints, endpoints),
        interpolation,
        fill,
    )


def _moved(
    images: jax.Array,
    matrix: Callable[[tuple[int, int], int], jax.Array],
    interpolation: str,
    fill: Fill,
) -> jax.Array:
    """Warps by what `matrix` makes of the images' size and number."""
    images = jnp.asarray(images)
    n = len(images) if images.ndim == 4 else 1
    size = images.shape[-3], images.shape[-2]
    return warp(images, matrix(size, n), None, interpolation, fill)


def _pair(name, values, n):
    first, second = values
    return per_image(name, first, n), per_image(name, second, n)
