"""Random windows painted over; see `random_geometry` for the two functions of each."""

from functools import partial

import jax
import jax.numpy as jnp

from cnn_flax.augment import fusion_registry
from cnn_flax.augment.erasing import erase
from cnn_flax.augment.homography import Fill
from cnn_flax.augment.prng import (
    Draw,
    check_probability,
    coins,
    draw_per_image,
    image_keys,
)

__all__ = ["cutout", "draw_cutout", "draw_erasing", "random_erasing"]

_ATTEMPTS = 10  # To draw a window that fits, as torchvision has it.


def draw_erasing(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    p: float = 0.5,
) -> Draw:
    """Windows: `top`, `left`, `height` and `width`, int32 `[n]`.

    As torchvision's `RandomErasing`: ten attempts at a window that is smaller than the
    image both ways; after them, or where the coin of probability `p` falls so, an empty
    one.

    Args:
      key: one key, or one an image `[n]`.
      n: how many images.
      shape: of an image, (H, W, C).
      scale: range of the window's share of the image's area, in [0, 1].
      ratio: range of its height over its width, drawn evenly in the logarithm.
      p: probability of a window.

    Raises:
      ValueError: if a range is not one.
    """
    check_probability(p)
    if not 0 <= scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale must be a range in [0, 1], got {scale}.")
    if not 0 < ratio[0] <= ratio[1]:
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
    paints = fits.any() & coins(key_coin, p)
    h = jnp.where(paints, heights[first], 0)
    w = jnp.where(paints, widths[first], 0)
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
    """Paints over a window of random place, area and proportions.

    Zhong et al. 2017, "Random erasing data augmentation",
    https://arxiv.org/abs/1708.04896; drawn as torchvision's `RandomErasing`: see
    `draw_erasing`.

    Args:
      key: one key, or one an image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      p: probability of a window.
      scale: range of the window's share of the image's area, in [0, 1].
      ratio: range of its height over its width, drawn evenly in the logarithm.
      value: what is painted, as of `erase`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a range is not one, or `p` is outside [0, 1].
    """
    draw = draw_erasing(*image_keys(key, images), images.shape[-3:], scale, ratio, p)
    return erase(images, **draw, value=value)


def draw_cutout(
    key: jax.Array, n: int, shape: tuple[int, ...], size: int, p: float = 1.0
) -> Draw:
    """Squares: `top`, `left`, `height` and `width`, int32 `[n]`.

    Args:
      key: one key, or one an image `[n]`.
      n: how many images.
      shape: of an image, (H, W, C).
      size: side of the square, in pixels, above 0.
      p: probability of a square.

    Raises:
      ValueError: if `size` is not above 0.
    """
    check_probability(p)
    if size < 1:
        raise ValueError(f"size is a whole number of pixels above 0, got {size}.")
    lengths = jnp.array(shape[:2])

    def draw(key):
        key_coin, key_place = jax.random.split(key)
        top, left = jax.random.randint(key_place, (2,), 0, lengths) - size // 2
        side = jnp.where(coins(key_coin, p), size, 0)
        return {"top": top, "left": left, "height": side, "width": side}

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_cutout, erase)
def cutout(
    key: jax.Array, images: jax.Array, size: int, p: float = 1.0, value: Fill = 0
) -> jax.Array:
    """Paints over a square whose centre may be any pixel; it ends at the border.

    DeVries and Taylor 2017, "Improved regularization of convolutional neural networks
    with Cutout", https://arxiv.org/abs/1708.04552.

    Args:
      key: one key, or one an image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      size: side of the square, in pixels, above 0; the paper has 16 and 8 for the
        32 pixels of CIFAR-10 and CIFAR-100.
      p: probability of a square.
      value: what is painted, as of `erase`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `size` is not above 0, or `p` is outside [0, 1].
    """
    draw = draw_cutout(*image_keys(key, images), images.shape[-3:], size, p)
    return erase(images, **draw, value=value)
