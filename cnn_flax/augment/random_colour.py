"""Random colour operations; see `random_geometry` for the pair of functions of each."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from cnn_flax.augment import colour, fusion_registry
from cnn_flax.augment.arguments import image_operation, per_image
from cnn_flax.augment.colour_matrix import (
    brightness_matrix,
    chain_colours,
    change_colours,
    check_colours,
    contrast_matrix,
    identity_colours,
    mean_colour,
    saturation_matrix,
    shift_colour,
)
from cnn_flax.augment.prng import (
    Draw,
    Range,
    bernoulli,
    check_probability,
    draw_per_image,
    image_keys,
    symmetric_range,
    uniform,
)

__all__ = [
    "color_jitter",
    "draw_brightness",
    "draw_grayscale",
    "draw_jitter",
    "jitter",
    "random_brightness",
    "random_grayscale",
]

_FACTOR = {"center": 1.0, "low": 0.0}


def draw_brightness(key: jax.Array, n: int, brightness: Range, p: float = 1.0) -> Draw:
    """Draws `factor` `[n]`; 1 with probability `1 - p`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      brightness: largest deviation from 1, or (lowest, highest) not below 0.
      p: probability of changing an image.
    """
    check_probability(p)
    bounds = symmetric_range("brightness", brightness, **_FACTOR)

    def draw(key):
        key_coin, key_factor = jax.random.split(key)
        factor = uniform(key_factor, bounds)
        return {"factor": jnp.where(bernoulli(key_coin, p), factor, 1.0)}

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_brightness, colour.adjust_brightness)
def random_brightness(
    key: jax.Array, images: jax.Array, brightness: Range, p: float = 1.0
) -> jax.Array:
    """Multiplies each image by its own random factor, then clips.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      brightness: largest deviation of the factor from 1, or (lowest, highest) not below
        0.
      p: probability of changing an image.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `brightness` is not a range, or `p` is outside [0, 1].
    """
    draw = draw_brightness(*image_keys(key, images), brightness, p)
    return colour.adjust_brightness(images, **draw)


def draw_grayscale(key: jax.Array, n: int, p: float = 0.1) -> Draw:
    """Draws the saturation `factor` `[n]`: 0 with probability `p`, otherwise 1."""
    check_probability(p)

    def draw(key):
        return {"factor": jnp.where(bernoulli(key, p), 0.0, 1.0)}

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_grayscale, colour.adjust_saturation)
def random_grayscale(key: jax.Array, images: jax.Array, p: float = 0.1) -> jax.Array:
    """Makes each image grey with probability `p`, keeping the number of channels.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`, with 1 or 3 channels.
      p: probability, in [0, 1].

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `p` is outside [0, 1].
    """
    return colour.adjust_saturation(
        images, **draw_grayscale(*image_keys(key, images), p)
    )


def draw_jitter(
    key: jax.Array,
    n: int,
    brightness: Range = 0.0,
    contrast: Range = 0.0,
    saturation: Range = 0.0,
    hue: Range = 0.0,
    p: float = 1.0,
) -> Draw:
    """Draws arguments of `jitter`: those that may vary, each `[n]`, and `order`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      brightness: largest deviation of the factor from 1, or (lowest, highest) not below
        0.
      contrast: same as `brightness`.
      saturation: same as `brightness`.
      hue: largest shift either way, at most 0.5, or (lowest, highest).
      p: probability of changing an image.
    """
    check_probability(p)
    factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    ranges = {
        name: symmetric_range(name, value, **_FACTOR) for name, value in factors.items()
    }
    neutral = dict.fromkeys(ranges, 1.0) | {"hue": 0.0}
    ranges["hue"] = symmetric_range("hue", hue, low=-0.5, high=0.5)
    varied = [name for name in ranges if ranges[name] != (neutral[name],) * 2]

    def draw(key):
        key_coin, key_order, *keys = jax.random.split(key, 6)
        is_changed = bernoulli(key_coin, p)
        arguments = {
            name: jnp.where(is_changed, uniform(k, ranges[name]), neutral[name])
            for name, k in zip(ranges, keys, strict=True)
            if name in varied
        }
        return arguments | {"order": jax.random.permutation(key_order, 4)}

    return draw_per_image(draw, key, n)


def jitter(
    images: jax.Array,
    brightness: ArrayLike = 1.0,
    contrast: ArrayLike = 1.0,
    saturation: ArrayLike = 1.0,
    hue: ArrayLike = 0.0,
    order: Sequence[int] | jax.Array = (0, 1, 2, 3),
) -> jax.Array:
    """Adjusts brightness, contrast, saturation and hue, in any order.

    The steps before the hue are fused into one colour matrix, as are those after it.
    Values are clipped to [0, 1] after each of these, whereas torchvision's
    `ColorJitter` clips after every step. The results are equal if no value leaves [0,
    1].

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`, with 1 or 3 channels.
      brightness: factor, not below 0: a number, or one per image `[N]`.
      contrast: same as `brightness`.
      saturation: same as `brightness`.
      hue: shift as a fraction of a turn, in [-0.5, 0.5]: a number, or one per image
        `[N]`.
      order: a permutation of the four arguments above, numbered from 0: `[4]` or `[N,
        4]`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a number is out of range, or a shape does not fit.
    """
    return _jitter(images, (brightness, contrast, saturation), hue, order)


@image_operation
def _jitter(images, factors, hue, order):
    n, *_, channels = images.shape
    check_colours(channels)
    order = jnp.asarray(order)
    if order.shape not in ((4,), (n, 4)):
        raise ValueError(f"order must be [4] or [{n}, 4], got shape {order.shape}.")
    order = jnp.broadcast_to(order if order.ndim == 2 else order[None], (n, 4))
    names = ("brightness", "contrast", "saturation")
    factors = [
        per_image(name, factor, n, low=0)
        for name, factor in zip(names, factors, strict=True)
    ]
    if isinstance(hue, int | float) and hue == 0:
        return _adjust(images, factors, order, jnp.ones((n, 4), bool))
    slots = jnp.arange(4)[None]
    hue_slot = jnp.argmax(order == 3, 1)[:, None]
    images = _adjust(images, factors, order, slots < hue_slot)
    images = colour.adjust_hue(images, hue)
    return _adjust(images, factors, order, slots > hue_slot)


def _adjust(images, factors, order, active):
    """Applies the steps of `order` that are active, `[N, 4]`."""
    n, *_, channels = images.shape
    mean = mean_colour(images)
    brightness, contrast, saturation = factors
    identity = total = identity_colours(n, channels)
    for slot in range(4):
        kind = jnp.where(active[:, slot], order[:, slot], 3)[:, None, None]
        matrix = jnp.select(
            [kind == 0, kind == 1, kind == 2],
            [
                brightness_matrix(brightness, channels),
                contrast_matrix(contrast, shift_colour(total, mean)),
                saturation_matrix(saturation, channels),
            ],
            identity,
        )
        total = chain_colours(total, matrix)
    return jnp.clip(change_colours(images, total), 0, 1)


@fusion_registry.as_draw(draw_jitter, jitter)
def color_jitter(
    key: jax.Array,
    images: jax.Array,
    brightness: Range = 0.0,
    contrast: Range = 0.0,
    saturation: Range = 0.0,
    hue: Range = 0.0,
    p: float = 1.0,
) -> jax.Array:
    """Randomly adjusts brightness, contrast, saturation and hue, in random order.

    Draws are those of torchvision's `ColorJitter`, but per image; applied by `jitter`.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`, with 1 or 3 channels.
      brightness: largest deviation of the factor from 1, or (lowest, highest) not below
        0.
      contrast: same as `brightness`.
      saturation: same as `brightness`.
      hue: largest shift either way, as a fraction of a turn of at most 0.5, or (lowest,
        highest).
      p: probability of changing an image.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a range is invalid, or `p` is outside [0, 1].
    """
    draw = draw_jitter(
        *image_keys(key, images), brightness, contrast, saturation, hue, p
    )
    return jitter(images, **draw)
