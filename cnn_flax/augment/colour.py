"""Colour operations: each maps pixel values without moving pixels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from cnn_flax.augment import fusion_registry
from cnn_flax.augment.arguments import image_operation, per_image, per_pixel
from cnn_flax.augment.colour_matrix import (
    brightness_matrix,
    check_colours,
    contrast_matrix,
    grey_of,
    inversion_matrix,
    mean_colour,
    saturation_matrix,
)
from cnn_flax.augment.levels import solarize_table

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_gamma",
    "adjust_hue",
    "adjust_saturation",
    "invert",
    "normalize",
    "rgb_to_grayscale",
    "solarize",
]


@fusion_registry.as_colour_matrix(
    lambda mean, factor: brightness_matrix(factor, mean.shape[1])
)
@image_operation
def adjust_brightness(images: jax.Array, factor: ArrayLike) -> jax.Array:
    """Multiplies by `factor` and clips to [0, 1], as torchvision's `adjust_brightness`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      factor: a number, or one per image `[N]`, not below 0; 0 is black, 1 changes
        nothing.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a factor is below 0.

    Example:
      >>> grey = jnp.full((1, 1, 3), 0.25)
      >>> cnn_flax.augment.adjust_brightness(grey, 2.0).tolist()
      [[[0.5, 0.5, 0.5]]]
    """
    return _blend(images, 0.0, _factor(factor, images))


@fusion_registry.as_colour_matrix(lambda mean, factor: contrast_matrix(factor, mean))
@image_operation
def adjust_contrast(images: jax.Array, factor: ArrayLike) -> jax.Array:
    """Blends with the mean grey of each image, as torchvision's `adjust_contrast`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`, with 1 or 3 channels.
      factor: a number, or one per image `[N]`, not below 0; 0 is grey, 1 changes
        nothing.

    Returns:
      The shape of `images`, clipped to [0, 1].

    Raises:
      ValueError: if a factor is below 0, or the images have other channels.
    """
    check_colours(images.shape[-1])
    mean = grey_of(mean_colour(images))[:, None, None, :]
    return _blend(images, mean, _factor(factor, images))


@fusion_registry.as_colour_matrix(
    lambda mean, factor: saturation_matrix(factor, mean.shape[1])
)
@image_operation
def adjust_saturation(images: jax.Array, factor: ArrayLike) -> jax.Array:
    """Blends with each pixel's grey, as torchvision's `adjust_saturation`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`; with 1 channel unchanged.
      factor: a number, or one per image `[N]`, not below 0; 0 is grey, 1 changes
        nothing.

    Returns:
      The shape of `images`, clipped to [0, 1].

    Raises:
      ValueError: if a factor is below 0, or the images have neither 1 nor 3 channels.
    """
    check_colours(images.shape[-1])
    factor = _factor(factor, images)
    return images if images.shape[-1] == 1 else _blend(images, grey_of(images), factor)


def _factor(factor, images):
    return per_pixel(per_image("factor", factor, len(images), low=0))


def _blend(images, others, factor):
    return jnp.clip(images * factor + others * (1 - factor), 0, 1)


@image_operation
def rgb_to_grayscale(images: jax.Array, num_output_channels: int = 1) -> jax.Array:
    """Converts to grey: 0.2989 red + 0.587 green + 0.114 blue, as torchvision does.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`, with 1 or 3 channels.
      num_output_channels: 1, or 3 equal ones.

    Returns:
      `[N, H, W, num_output_channels]`.

    Raises:
      ValueError: if the number of input or output channels is neither 1 nor 3.
    """
    if num_output_channels not in (1, 3):
        raise ValueError(
            f"num_output_channels must be 1 or 3, got {num_output_channels}."
        )
    check_colours(images.shape[-1])
    return jnp.repeat(grey_of(images), num_output_channels, -1)


@fusion_registry.as_colour_matrix(
    lambda mean, where=None: inversion_matrix(
        jnp.ones(len(mean)) if where is None else where, mean.shape[1]
    )
)
@image_operation
def invert(images: jax.Array, where: ArrayLike = True) -> jax.Array:
    """`1 - images`, as torchvision's `invert`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      where: whether to invert: a bool, or one per image `[N]`.

    Returns:
      The shape of `images`.
    """
    if isinstance(where, bool):
        return 1 - images if where else images
    where = per_pixel(per_image("where", where, len(images)) > 0)
    return jnp.where(where, 1 - images, images)


@fusion_registry.as_level_table(solarize_table)
@image_operation
def solarize(images: jax.Array, threshold: ArrayLike) -> jax.Array:
    """Inverts values at or above `threshold`, as torchvision's `solarize`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      threshold: a number, or one per image `[N]`; above 1 changes nothing.

    Returns:
      The shape of `images`.
    """
    threshold = per_pixel(per_image("threshold", threshold, len(images)))
    return jnp.where(images >= threshold, 1 - images, images)


@image_operation
def adjust_gamma(
    images: jax.Array, gamma: ArrayLike, gain: ArrayLike = 1.0
) -> jax.Array:
    """`gain * images ** gamma`, clipped to [0, 1], as torchvision's `adjust_gamma`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      gamma: a number, or one per image `[N]`, not below 0; above 1 darkens.
      gain: a number, or one per image `[N]`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if a gamma is below 0.
    """
    n = len(images)
    gamma = per_pixel(per_image("gamma", gamma, n, low=0))
    return jnp.clip(per_pixel(per_image("gain", gain, n)) * images**gamma, 0, 1)


@image_operation
def adjust_hue(images: jax.Array, hue: ArrayLike) -> jax.Array:
    """Shifts the hue, as torchvision's `adjust_hue`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`; with 1 channel unchanged.
      hue: shift as a fraction of a full turn, in [-0.5, 0.5]: a number, or one per
        image `[N]`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `hue` is out of range, or the images have neither 1 nor 3 channels.
    """
    check_colours(images.shape[-1])
    hue = per_image("hue", hue, len(images), low=-0.5, high=0.5)[:, None, None]
    if images.shape[-1] == 1:
        return images
    red, green, blue = (images[..., channel] for channel in range(3))
    high = jnp.maximum(jnp.maximum(red, green), blue)
    low = jnp.minimum(jnp.minimum(red, green), blue)
    chroma = high - low
    divisor = jnp.where(chroma == 0, 1, chroma)
    # Hue in sixths of a turn from red. The first of equal channels wins.
    sixths = jnp.where(
        high == red,
        (green - blue) / divisor,
        jnp.where(
            high == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor
        ),
    )
    sixths = sixths + 6 * hue

    def channel(offset):
        # A channel falls from `high` to `low` between one and two sixths from its own
        # third of the circle.
        distance = (sixths + offset) % 6
        return high - chroma * jnp.clip(jnp.minimum(distance, 4 - distance), 0, 1)

    shifted = jnp.stack([channel(5), channel(3), channel(1)], -1)
    return jnp.where(hue[..., None] == 0, images, shifted)


def normalize(
    images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """`(images - mean) / std` per channel, as torchvision's `normalize`.

    Args:
      images: float `[..., H, W, C]`.
      mean: one value per channel.
      std: one value per channel, above 0.

    Returns:
      `[..., H, W, C]`.

    Raises:
      ValueError: if there is not one value per channel, or a `std` is not positive.
    """
    channels = images.shape[-1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(
            f"Images of {channels} channels need {channels} means and {channels} "
            f"positive standard deviations, got {tuple(mean)} and {tuple(std)}."
        )
    shape = (*[1] * (images.ndim - 1), channels)
    mean_, std_ = (jnp.array(v, images.dtype).reshape(shape) for v in (mean, std))
    return (images - mean_) / std_
