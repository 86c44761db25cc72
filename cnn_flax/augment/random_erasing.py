"""Random erasing; see `random_geometry` for the pair of functions of each operation."""

from functools import partial

import jax
import jax.numpy as jnp

from cnn_flax.augment import fusion_registry
from cnn_flax.augment.erasing import erase
from cnn_flax.augment.homography import Fill
from cnn_flax.augment.prng import (
    Draw,
    bernoulli,
    check_probability,
    draw_per_image,
    image_keys,
    is_range,
)

__all__ = ["cutout", "draw_cutout", "draw_erasing", "random_erasing"]

_ATTEMPTS = 10  # At a window that fits, as in torchvision.


def draw_erasing(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    p: float = 0.5,
) -> Draw:
    """Draws windows: `top`, `left`, `height` and `width`, int32 `[n]`.

    As torchvision's `RandomErasing`: up to ten attempts at a window smaller than the
    image in both directions. The window is empty if none fits, and with probability
    `1 - p`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      shape: (H, W, C) of an image.
      scale: range of the window's area as a fraction of the image's, in [0, 1].
      ratio: range of height over width, log-uniform.
      p: probability of a window.

    Raises:
      ValueError: if a range is invalid.
    """
    check_probability(p)
    if not (is_range(scale) and 0 <= scale[0] and scale[1] <= 1):
        raise ValueError(f"scale must be a range in [0, 1], got {scale}.")
    if not (is_range(ratio) and ratio[0] > 0):
        raise ValueError(f"ratio must be a range above 0, got {ratio}.")
    height, width = shape[:2]
    draw = partial(_draw, height=height, width=width, scale=scale, ratio=ratio, p=p)
    return draw_per_image(draw, key, n)


def _draw(key, *, height, width, scale, ratio, p):
    key_coin, key_area, key_ratio, key_top, key_left = jax.random.split(key, 5)
    low, high = scale
    area = jax.random.uniform(key_area, (_ATTEMPTS,), minval=low, maxval=high)
    area = area * (height * width)
    low, high = jnp.log(jnp.array(ratio))
    log_ratio = jax.random.uniform(key_ratio, (_ATTEMPTS,), minval=low, maxval=high)
    sides = jnp.stack([area * jnp.exp(log_ratio), area / jnp.exp(log_ratio)])
    heights, widths = jnp.round(jnp.sqrt(sides)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    is_painted = fits.any() & bernoulli(key_coin, p)
    h = jnp.where(is_painted, heights[first], 0)
    w = jnp.where(is_painted, widths[first], 0)
    return {
        "top": jax.random.randint(key_top, (), 0, height - h + 1),
        "left": jax.random.randint(key_left, (), 0, width - w + 1),
        "height": h,
        "width": w,
    }


@fusion_registry.as_draw(draw_erasing, erase)
def random_erasing(
    key: jax.Array,
    images: jax.Array,
    p: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value: Fill = 0,
) -> jax.Array:
    """Paints over a window of random position, area and aspect ratio.

    Zhong et al. 2017, "Random erasing data augmentation",
    https://arxiv.org/abs/1708.04896; windows as in torchvision's `RandomErasing`, see
    `draw_erasing`.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      p: probability of a window.
      scale: range of the window's area as a fraction of the image's, in [0, 1].
      ratio: range of height over width, log-uniform.
      value: what to paint, same as for `erase`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a range is invalid, or `p` is outside [0, 1].
    """
    draw = draw_erasing(*image_keys(key, images), images.shape[-3:], scale, ratio, p)
    return erase(images, **draw, value=value)


def draw_cutout(
    key: jax.Array, n: int, shape: tuple[int, ...], size: int, p: float = 1.0
) -> Draw:
    """Draws squares: `top`, `left`, `height` and `width`, int32 `[n]`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      shape: (H, W, C) of an image.
      size: side of the square, in pixels, above 0.
      p: probability of a square.

    Raises:
      ValueError: if `size` is not above 0.
    """
    check_probability(p)
    if size < 1:
        raise ValueError(f"size must be a positive whole number of pixels, got {size}.")
    lengths = jnp.array(shape[:2])

    def draw(key):
        key_coin, key_place = jax.random.split(key)
        top, left = jax.random.randint(key_place, (2,), 0, lengths) - size // 2
        side = jnp.where(bernoulli(key_coin, p), size, 0)
        return {"top": top, "left": left, "height": side, "width": side}

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_cutout, erase)
def cutout(
    key: jax.Array, images: jax.Array, size: int, p: float = 1.0, value: Fill = 0
) -> jax.Array:
    """Paints over a square with a random pixel as its centre, clipped to the image.

    DeVries and Taylor 2017, "Improved regularization of convolutional neural networks
    with Cutout", https://arxiv.org/abs/1708.04552.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      size: side of the square, in pixels, above 0; the paper uses 16 and 8 for the
        32-pixel images of CIFAR-10 and CIFAR-100.
      p: probability of a square.
      value: what to paint, same as for `erase`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `size` is not above 0, or `p` is outside [0, 1].
    """
    draw = draw_cutout(*image_keys(key, images), images.shape[-3:], size, p)
    return erase(images, **draw, value=value)
