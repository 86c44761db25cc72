"""Random operations on colours; see `random_geometry` for the two functions of each."""

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
    check_probability,
    coins,
    draw_numbers,
    draw_per_image,
    image_keys,
    symmetric,
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

_NEVER_BELOW = {"center": 1.0, "low": 0.0}


def draw_brightness(key: jax.Array, n: int, brightness: Range, p: float = 1.0) -> Draw:
    """Factors: `factor` `[n]`, 1 where the coin of probability `p` falls so.

    Args:
      key: one key, or one an image `[n]`.
      n: how many images.
      brightness: how far from 1, not below 0; or (lowest, highest).
      p: probability of any change at all.
    """
    check_probability(p)
    bounds = symmetric("brightness", brightness, **_NEVER_BELOW)

    def draw(key):
        key_coin, key_factor = jax.random.split(key)
        factor = draw_numbers(key_factor, bounds)
        return {"factor": jnp.where(coins(key_coin, p), factor, 1.0)}

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_brightness, colour.adjust_brightness)
def random_brightness(
    key: jax.Array, images: jax.Array, brightness: Range, p: float = 1.0
) -> jax.Array:
    """Multiplies each image by a factor of its own, then clips.

    Args:
      key: one key, or one an image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      brightness: how far from 1 the factor lies, not below 0; or (lowest, highest).
      p: probability of any change at all.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `brightness` is no range, or `p` is outside [0, 1].
    """
    draw = draw_brightness(*image_keys(key, images), brightness, p)
    return colour.adjust_brightness(images, **draw)


def draw_grayscale(key: jax.Array, n: int, p: float = 0.1) -> Draw:
    """Factors of saturation: `factor` `[n]`, 0 with probability `p` and 1 otherwise."""
    check_probability(p)

    def draw(key):
        return {"factor": jnp.where(coins(key, p), 0.0, 1.0)}

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_grayscale, colour.adjust_saturation)
def random_grayscale(key: jax.Array, images: jax.Array, p: float = 0.1) -> jax.Array:
    """Makes each image grey with probability `p`; the channels stay as many.

    Args:
      key: one key, or one an image `[N]`.
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
    """Arguments of `jitter`: the numbers that may change, each `[n]`, and `order`.

    Args:
      key: one key, or one an image `[n]`.
      n: how many images.
      brightness: how far from 1, not below 0; or (lowest, highest).
      contrast: likewise.
      saturation: likewise.
      hue: how far from 0, at most 0.5; or (lowest, highest).
      p: probability of any change at all.
    """
    check_probability(p)
    factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    ranges = {
        name: symmetric(name, value, **_NEVER_BELOW) for name, value in factors.items()
    }
    neutral = dict.fromkeys(ranges, 1.0) | {"hue": 0.0}
    ranges["hue"] = symmetric("hue", hue, low=-0.5, high=0.5)
    keep = [name for name in ranges if ranges[name] != (neutral[name],) * 2]

    def draw(key):
        key_coin, key_order, *keys = jax.random.split(key, 6)
        changes = coins(key_coin, p)
        numbers = {
            name: jnp.where(changes, draw_numbers(k, ranges[name]), neutral[name])
            for name, k in zip(ranges, keys, strict=True)
            if name in keep
        }
        return numbers | {"order": jax.random.permutation(key_order, 4)}

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

    What comes before the hue is one change of colours, and so is what comes after it:
    values are clipped to [0, 1] after each of those, not between their parts, where
    torchvision's `ColorJitter` clips too. The same where nothing leaves [0, 1].

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`, with 1 or 3 channels.
      brightness: factor, a number or one an image `[N]`, not below 0.
      contrast: factor, likewise.
      saturation: factor, likewise.
      hue: share of a turn, in [-0.5, 0.5]; a number, or one an image `[N]`.
      order: of the four, counted as they stand here from 0: `[4]` or `[N, 4]`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a number is outside its range, or a shape does not fit.
    """
    return _jitter(images, (brightness, contrast, saturation), hue, order)


@image_operation
def _jitter(images, factors, hue, order):
    n, *_, channels = images.shape
    check_colours(channels)
    order = jnp.asarray(order)
    if order.shape not in ((4,), (n, 4)):
        raise ValueError(f"order is [4] or [{n}, 4], got the shape {order.shape}.")
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
    """Changes colours by those slots of `order` that are active, `[N, 4]`."""
    n, *_, channels = images.shape
    mean = mean_colour(images)
    brightness, contrast, saturation = factors
    nothing = whole = identity_colours(n, channels)
    for slot in range(4):
        kind = jnp.where(active[:, slot], order[:, slot], 3)[:, None, None]
        matrix = jnp.select(
            [kind == 0, kind == 1, kind == 2],
            [
                brightness_matrix(brightness, channels),
                contrast_matrix(contrast, shift_colour(whole, mean)),
                saturation_matrix(saturation, channels),
            ],
            nothing,
        )
        whole = chain_colours(whole, matrix)
    return jnp.clip(change_colours(images, whole), 0, 1)


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
    """Adjusts brightness, contrast, saturation and hue, in an order drawn too.

    Drawn as torchvision's `ColorJitter`, image by image; applied by `jitter`.

    Args:
      key: one key, or one an image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`, with 1 or 3 channels.
      brightness: how far from 1 the factor lies, not below 0; or (lowest, highest).
      contrast: likewise.
      saturation: likewise.
      hue: how far from 0 the share of a turn lies, at most 0.5; or (lowest, highest).
      p: probability of any change at all.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a range is not one, or `p` is outside [0, 1].
    """
    draw = draw_jitter(
        *image_keys(key, images), brightness, contrast, saturation, hue, p
    )
    return jitter(images, **draw)
