"""Random geometric operations, each a pair of functions.

`draw_NAME(key, n, ...)` draws per-image arguments of a deterministic operation;
`random_NAME(key, images, ...)` draws and applies them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cnn_flax.augment import fusion_registry, geometry, resample
from cnn_flax.augment.arguments import image_size
from cnn_flax.augment.homography import Fill, crop_matrix
from cnn_flax.augment.prng import (
    Draw,
    Range,
    bernoulli,
    check_probability,
    draw_per_image,
    image_keys,
    is_range,
    symmetric_range,
    uniform,
)
from cnn_flax.layers.arguments import finite_number, is_sequence, whole_number

__all__ = [
    "draw_affine",
    "draw_crop",
    "draw_flip",
    "draw_perspective",
    "draw_resized_crop",
    "draw_rotation",
    "draw_shear",
    "random_affine",
    "random_crop",
    "random_horizontal_flip",
    "random_perspective",
    "random_resized_crop",
    "random_rotation",
    "random_shear",
    "random_vertical_flip",
]

_ATTEMPTS = 10  # At a window that fits, as in torchvision.


def draw_flip(key: jax.Array, n: int, p: float = 0.5) -> Draw:
    """Draws which of `n` images to flip: `where`, bool `[n]`."""
    check_probability(p)
    return draw_per_image(lambda k: {"where": bernoulli(k, p)}, key, n)


@fusion_registry.as_draw(draw_flip, geometry.horizontal_flip)
def random_horizontal_flip(
    key: jax.Array, images: jax.Array, p: float = 0.5
) -> jax.Array:
    """Flips each image left to right with probability `p`.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` or `[H, W, C]`.
      p: probability, in [0, 1].

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `p` is outside [0, 1].
    """
    draw = draw_flip(*image_keys(key, images), p)
    return geometry.horizontal_flip(images, **draw)


@fusion_registry.as_draw(draw_flip, geometry.vertical_flip)
def random_vertical_flip(
    key: jax.Array, images: jax.Array, p: float = 0.5
) -> jax.Array:
    """Flips each image upside down with probability `p`.

    Arguments are those of `random_horizontal_flip`.
    """
    draw = draw_flip(*image_keys(key, images), p)
    return geometry.vertical_flip(images, **draw)


def draw_crop(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    size: int | tuple[int, int],
    padding: int = 0,
) -> Draw:
    """Draws the corners of windows: `top` and `left`, int32 `[n]`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      shape: (H, W, C) of an image.
      size: height and width of the window, in pixels.
      padding: how far a window may extend beyond the image, in pixels.

    Raises:
      ValueError: if the window is larger than the padded image.
    """
    sides, padding = image_size(size), whole_number("padding", padding, least=0)
    height, width = (length + 2 * padding for length in shape[:2])
    if height < sides[0] or width < sides[1]:
        raise ValueError(
            f"A window of {sides[0]} x {sides[1]} does not fit into padded images of "
            f"{height} x {width}."
        )
    slack = jnp.array([height - sides[0], width - sides[1]])

    def draw(key):
        top, left = jax.random.randint(key, (2,), 0, slack + 1) - padding
        return {"top": top, "left": left}

    return draw_per_image(draw, key, n)


@fusion_registry.as_homography(
    lambda _, top, left, size: crop_matrix(top, left), fill=0
)
def _crop_window(
    images: jax.Array, top: jax.Array, left: jax.Array, size: int | tuple[int, int]
) -> jax.Array:
    """`crop` with `size` for `height` and `width`, to match `random_crop`."""
    return geometry.crop(images, top, left, *image_size(size))


@fusion_registry.as_draw(draw_crop, _crop_window)
def random_crop(
    key: jax.Array, images: jax.Array, size: int | tuple[int, int], padding: int = 0
) -> jax.Array:
    """Crops a window of each image at a uniformly random position.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      size: height and width of the window, in pixels.
      padding: zeros added on each side before the crop, in pixels.

    Returns:
      `[N, *size, C]`.

    Raises:
      ValueError: if the window is larger than the padded image.
    """
    draw = draw_crop(*image_keys(key, images), images.shape[-3:], size, padding)
    return _crop_window(images, **draw, size=size)


def draw_resized_crop(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Draw:
    """Draws windows: `top`, `left`, `height` and `width`, int32 `[n]`.

    As torchvision's `RandomResizedCrop`: up to ten attempts at a window that fits, then
    the largest central window whose aspect ratio is in `ratio`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      shape: (H, W, C) of an image.
      scale: range of the window's area as a fraction of the image's, in (0, 1].
      ratio: range of width over height, log-uniform.

    Raises:
      ValueError: if a range is invalid.
    """
    if not (is_range(scale) and 0 < scale[0] and scale[1] <= 1):
        raise ValueError(f"scale must be a range in (0, 1], got {scale}.")
    if not (is_range(ratio) and ratio[0] > 0):
        raise ValueError(f"ratio must be a range above 0, got {ratio}.")
    height, width = shape[:2]
    draw = partial(_draw_box, height=height, width=width, scale=scale, ratio=ratio)
    return draw_per_image(draw, key, n)


def _draw_box(
    key: jax.Array,
    *,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Draw:
    key_area, key_ratio, key_top, key_left = jax.random.split(key, 4)
    low, high = scale
    area = jax.random.uniform(key_area, (_ATTEMPTS,), minval=low, maxval=high)
    area = area * (height * width)
    low, high = jnp.log(jnp.array(ratio))
    log_ratio = jax.random.uniform(key_ratio, (_ATTEMPTS,), minval=low, maxval=high)
    sides = jnp.stack([area / jnp.exp(log_ratio), area * jnp.exp(log_ratio)])
    heights, widths = jnp.round(jnp.sqrt(sides)).astype(jnp.int32)
    fits = (0 < heights) & (heights <= height) & (0 < widths) & (widths <= width)
    first, found = jnp.argmax(fits), fits.any()

    # Otherwise the largest central window.
    largest_height = min(height, max(round(width / ratio[0]), 1))
    largest_width = min(width, max(round(height * ratio[1]), 1))
    h = jnp.where(found, heights[first], largest_height)
    w = jnp.where(found, widths[first], largest_width)
    top = jax.random.randint(key_top, (), 0, height - h + 1)
    left = jax.random.randint(key_left, (), 0, width - w + 1)
    return {
        "top": jnp.where(found, top, (height - h) // 2),
        "left": jnp.where(found, left, (width - w) // 2),
        "height": h,
        "width": w,
    }


@fusion_registry.as_draw(draw_resized_crop, resample.resized_crop)
def random_resized_crop(
    key: jax.Array,
    images: jax.Array,
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "bilinear",
    antialias: bool = True,
) -> jax.Array:
    """Crops a window of random area and aspect ratio of each image and resizes it.

    Szegedy et al. 2014, "Going deeper with convolutions",
    https://arxiv.org/abs/1409.4842, section 6; windows as in torchvision's
    `RandomResizedCrop`, see `draw_resized_crop`.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      size: height and width of the result, in pixels.
      scale: range of the window's area as a fraction of the image's, in (0, 1].
      ratio: range of width over height, log-uniform.
      interpolation: "bilinear" or "nearest".
      antialias: whether to antialias when downsampling, as in `resized_crop`.

    Returns:
      `[N, *size, C]`.

    Raises:
      ValueError: if a range is invalid.
    """
    draw = draw_resized_crop(*image_keys(key, images), images.shape[-3:], scale, ratio)
    return resample.resized_crop(
        images, **draw, size=size, interpolation=interpolation, antialias=antialias
    )


def draw_rotation(key: jax.Array, n: int, degrees: Range, p: float = 1.0) -> Draw:
    """Draws angles `degrees` `[n]`; 0 with probability `1 - p`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      degrees: the largest angle either way, or (lowest, highest).
      p: probability of rotating an image.
    """
    check_probability(p)
    bounds = symmetric_range("degrees", degrees)

    def draw(key):
        key_coin, key_angle = jax.random.split(key)
        angle = uniform(key_angle, bounds)
        return {"degrees": jnp.where(bernoulli(key_coin, p), angle, 0.0)}

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_rotation, geometry.rotate)
def random_rotation(
    key: jax.Array,
    images: jax.Array,
    degrees: Range,
    p: float = 1.0,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Rotates each image about its centre by its own random angle.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      degrees: the largest angle either way, or (lowest, highest); uniform.
      p: probability of rotating an image.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image; see `rotate`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `degrees` is not a range, or `p` is outside [0, 1].
    """
    draw = draw_rotation(*image_keys(key, images), degrees, p)
    return geometry.rotate(images, **draw, interpolation=interpolation, fill=fill)


def draw_affine(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    degrees: Range = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    shear: Range | tuple[float, float, float, float] = 0.0,
    p: float = 1.0,
) -> Draw:
    """Draws arguments of `affine`: `angle`, `translate`, `scale`, `shear`, each `[n]`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      shape: (H, W, C) of an image.
      degrees: the largest angle either way, or (lowest, highest).
      translate: the largest translations either way, horizontal and vertical, as
        fractions of width and height, in [0, 1]; rounded to whole pixels.
      scale: range, above 0.
      shear: degrees: the largest along x either way, or (lowest, highest) along x,
        optionally followed by (lowest, highest) along y.
      p: probability of changing an image.

    Raises:
      ValueError: if a range is invalid.
    """
    check_probability(p)
    angles = symmetric_range("degrees", degrees)
    if not (
        is_sequence(translate)
        and len(translate) == 2
        and all(0 <= fraction <= 1 for fraction in translate)
    ):
        raise ValueError(f"translate must be two fractions in [0, 1], got {translate}.")
    if not (is_range(scale) and scale[0] > 0):
        raise ValueError(f"scale must be a range above 0, got {scale}.")
    shears: Any = shear
    if not is_sequence(shear):
        largest = abs(finite_number("shear", shear))
        shears = (-largest, largest)
    shears_x = symmetric_range("shear", shears[:2])
    shears_y = symmetric_range("shear", shears[2:] if len(shears) > 2 else (0.0, 0.0))
    moves = (translate[0] * shape[1], translate[1] * shape[0])

    def draw(key):
        key_coin, *keys = jax.random.split(key, 7)
        is_changed = bernoulli(key_coin, p)

        def number(key, bounds, neutral=0.0):
            return jnp.where(is_changed, uniform(key, bounds), neutral)

        return {
            "angle": number(keys[0], angles),
            "translate": (
                jnp.round(number(keys[1], (-moves[0], moves[0]))),
                jnp.round(number(keys[2], (-moves[1], moves[1]))),
            ),
            "scale": number(keys[3], scale, 1.0),
            "shear": (number(keys[4], shears_x), number(keys[5], shears_y)),
        }

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_affine, geometry.affine)
def random_affine(
    key: jax.Array,
    images: jax.Array,
    degrees: Range = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    shear: Range | tuple[float, float, float, float] = 0.0,
    p: float = 1.0,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Shears, scales, rotates and translates each image by its own random amounts.

    Draws are those of torchvision's `RandomAffine`; for the ranges see `draw_affine`.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      degrees: the largest angle either way, or (lowest, highest).
      translate: the largest translations either way, as fractions of width and height.
      scale: range, above 0.
      shear: degrees along x, or (lowest, highest) along x, optionally also along y.
      p: probability of changing an image.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image; see `affine`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a range is invalid.
    """
    draw = draw_affine(
        *(*image_keys(key, images), images.shape[-3:]),
        *(degrees, translate, scale, shear, p),
    )
    return geometry.affine(images, **draw, interpolation=interpolation, fill=fill)


def draw_shear(
    key: jax.Array, n: int, x: Range = 0.0, y: Range = 0.0, p: float = 1.0
) -> Draw:
    """Draws the argument `shear` of `affine`: along x and along y, each `[n]`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      x: the largest degrees along x either way, or (lowest, highest).
      y: the largest degrees along y either way, or (lowest, highest).
      p: probability of shearing an image.
    """
    check_probability(p)
    bounds = symmetric_range("x", x), symmetric_range("y", y)

    def draw(key):
        key_coin, key_x, key_y = jax.random.split(key, 3)
        is_sheared = bernoulli(key_coin, p)
        return {
            "shear": tuple(
                jnp.where(is_sheared, uniform(key, limits), 0.0)
                for key, limits in zip((key_x, key_y), bounds, strict=True)
            )
        }

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_shear, geometry.affine)
def random_shear(
    key: jax.Array,
    images: jax.Array,
    x: Range = 0.0,
    y: Range = 0.0,
    p: float = 1.0,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Shears each image about its centre, along x and along y.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      x: the largest degrees along x either way, or (lowest, highest); uniform.
      y: the largest degrees along y either way, or (lowest, highest); uniform.
      p: probability of shearing an image.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image; see `affine`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a range is invalid.
    """
    draw = draw_shear(*image_keys(key, images), x, y, p)
    return geometry.affine(images, **draw, interpolation=interpolation, fill=fill)


def draw_perspective(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    distortion_scale: float = 0.5,
    p: float = 0.5,
) -> Draw:
    """Draws where corners are mapped: `startpoints`, `endpoints`, `[n, 4, 2]`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      shape: (H, W, C) of an image.
      distortion_scale: how far a corner may move towards the centre, as a fraction of
        the way, in [0, 1].
      p: probability of changing an image.

    Raises:
      ValueError: if an argument is out of range.
    """
    check_probability(p)
    if not 0 <= distortion_scale <= 1:
        raise ValueError(f"distortion_scale must be in [0, 1], got {distortion_scale}.")
    height, width = shape[:2]
    right, bottom = width - 1, height - 1
    corners = jnp.array([(0, 0), (right, 0), (right, bottom), (0, bottom)], float)
    inward = jnp.array([(1, 1), (-1, 1), (-1, -1), (1, -1)], float)
    # Whole pixels, as in torchvision.
    most = jnp.array([distortion_scale * (side // 2) for side in (width, height)])
    most = jnp.floor(most).astype(jnp.int32)

    def draw(key):
        key_coin, key_moves = jax.random.split(key)
        moves = jax.random.randint(key_moves, (4, 2), 0, most[None] + 1)
        moves = jnp.where(bernoulli(key_coin, p), moves, 0)
        return {"startpoints": corners, "endpoints": corners + inward * moves}

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_perspective, geometry.perspective)
def random_perspective(
    key: jax.Array,
    images: jax.Array,
    distortion_scale: float = 0.5,
    p: float = 0.5,
    interpolation: str = "bilinear",
    fill: Fill = 0,
) -> jax.Array:
    """Applies a random perspective to each image, as torchvision's `RandomPerspective`.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`, of at least 2 x 2 pixels.
      distortion_scale: how far a corner may move towards the centre, as a fraction of
        the way, in [0, 1].
      p: probability of changing an image.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image; see `perspective`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if an argument is out of range.
    """
    draw = draw_perspective(
        *image_keys(key, images), images.shape[-3:], distortion_scale, p
    )
    return geometry.perspective(images, **draw, interpolation=interpolation, fill=fill)
