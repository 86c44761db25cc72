"""Random blur and noise; see `random_geometry` for the pair of functions of each."""

from typing import Any

import jax
import jax.numpy as jnp

from cnn_flax.augment import filters, fusion_registry
from cnn_flax.augment.erasing import add_noise
from cnn_flax.augment.prng import (
    Draw,
    bernoulli,
    check_probability,
    draw_per_image,
    image_keys,
    is_range,
    uniform,
)
from cnn_flax.layers.arguments import finite_number, is_sequence

__all__ = [
    "draw_gaussian_blur",
    "draw_gaussian_noise",
    "gaussian_noise",
    "random_gaussian_blur",
]


def draw_gaussian_blur(
    key: jax.Array, n: int, sigma: tuple[float, float] = (0.1, 2.0), p: float = 0.5
) -> Draw:
    """Draws standard deviations `sigma` `[n]`; 0 with probability `1 - p`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      sigma: range, in pixels, not below 0.
      p: probability of changing an image.
    """
    check_probability(p)
    _check_sigma(sigma)

    def draw(key):
        key_coin, key_sigma = jax.random.split(key)
        return {
            "sigma": jnp.where(bernoulli(key_coin, p), uniform(key_sigma, sigma), 0)
        }

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_gaussian_blur, filters.gaussian_blur)
def random_gaussian_blur(
    key: jax.Array,
    images: jax.Array,
    kernel_size: int | tuple[int, int],
    sigma: tuple[float, float] = (0.1, 2.0),
    p: float = 0.5,
) -> jax.Array:
    """Blurs each image by its own random standard deviation.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      kernel_size: odd number of pixels that the kernel covers; see `gaussian_blur`.
      sigma: range of the standard deviation, in pixels; uniform.
      p: probability of changing an image.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `sigma` is not a range, or `p` is outside [0, 1].
    """
    draw = draw_gaussian_blur(*image_keys(key, images), sigma, p)
    return filters.gaussian_blur(images, kernel_size, **draw)


def draw_gaussian_noise(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    sigma: float | tuple[float, float] = 0.1,
    p: float = 1.0,
) -> Draw:
    """Draws `noise` `[n, *shape]`; 0 with probability `1 - p`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      shape: (H, W, C) of an image.
      sigma: standard deviation, or its range, drawn uniformly per image.
      p: probability of changing an image.
    """
    check_probability(p)
    bounds: Any = sigma if is_sequence(sigma) else (finite_number("sigma", sigma),) * 2
    _check_sigma(bounds)

    def draw(key):
        key_coin, key_sigma, key_noise = jax.random.split(key, 3)
        strength = jnp.where(bernoulli(key_coin, p), uniform(key_sigma, bounds), 0)
        return {"noise": strength * jax.random.normal(key_noise, shape)}

    return draw_per_image(draw, key, n)


@fusion_registry.as_draw(draw_gaussian_noise, add_noise)
def gaussian_noise(
    key: jax.Array,
    images: jax.Array,
    sigma: float | tuple[float, float] = 0.1,
    p: float = 1.0,
) -> jax.Array:
    """Adds independent Gaussian noise to each pixel and channel, then clips.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      sigma: standard deviation, or its range, drawn uniformly per image.
      p: probability of changing an image.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `sigma` is below 0 or not a range, or `p` is outside [0, 1].
    """
    draw = draw_gaussian_noise(*image_keys(key, images), images.shape[-3:], sigma, p)
    return add_noise(images, **draw)


def _check_sigma(sigma):
    if not (is_range(sigma) and sigma[0] >= 0):
        raise ValueError(f"sigma must be a range not below 0, got {sigma}.")
