"""Filters: each output pixel is a weighted sum of its neighbourhood."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from cnn_flax.augment.arguments import (
    Pair,
    image_operation,
    per_image,
    per_pixel,
)
from cnn_flax.layers.arguments import whole_pair
from cnn_flax.layers.cpu.materialize import materialize

__all__ = ["adjust_sharpness", "gaussian_blur"]


@image_operation
def adjust_sharpness(images: jax.Array, factor: ArrayLike) -> jax.Array:
    """Blends with a smoothed copy, as torchvision's `adjust_sharpness`.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`. The border is unchanged,
        as are images of at most 2 pixels on a side.
      factor: a number, or one per image `[N]`, not below 0; 0 smooths, 1 changes
        nothing.

    Returns:
      The shape of `images`, clipped to [0, 1].

    Raises:
      ValueError: if a factor is below 0.
    """
    factor = per_image("factor", factor, len(images), low=0)[:, None, None]
    n, height, width, channels = images.shape
    if height <= 2 or width <= 2:
        return images
    # Flat, and each sum once: on a CPU loops over three channels are slow.
    images = materialize(images.reshape(n, height, width * channels))
    rows = materialize(images[:, :-2] + images[:, 1:-1] + images[:, 2:])
    around = sum(
        rows[:, :, i * channels :][:, :, : (width - 2) * channels] for i in range(3)
    )
    middle = images[:, 1:-1, channels:-channels]
    # A 3 x 3 kernel of ones with 5 in the middle, divided by its sum.
    smooth = (around + 4 * middle) / 13
    blended = jnp.clip(middle + (1 - factor) * (smooth - middle), 0, 1)
    images = images.at[:, 1:-1, channels:-channels].set(materialize(blended))
    return images.reshape(n, height, width, channels)


@image_operation
def gaussian_blur(
    images: jax.Array,
    kernel_size: int | tuple[int, int],
    sigma: ArrayLike | Pair | None = None,
) -> jax.Array:
    """Convolves with a Gaussian kernel, as torchvision's `gaussian_blur`.

    The border is reflect-padded, without repeating the border pixel.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      kernel_size: odd number of pixels that the kernel covers, or (along x, along y).
      sigma: standard deviation in pixels, not below 0; 0 changes nothing. A number, one
        per image `[N]`, or a pair of these, (along x, along y). Default:
        `0.15 * kernel_size + 0.35`.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `kernel_size` is not odd, or a sigma is below 0.
    """
    sizes = whole_pair("kernel_size", kernel_size)
    if not all(k % 2 == 1 for k in sizes):
        raise ValueError(
            "kernel_size must be an odd number of pixels, or a pair of them; got "
            f"{kernel_size}."
        )
    if sigma is None:
        sigma = (0.15 * sizes[0] + 0.35, 0.15 * sizes[1] + 0.35)
    sigmas = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    for axis, size, sigma in zip((2, 1), sizes, sigmas, strict=True):
        weights = _gaussian(size, per_image("sigma", sigma, len(images), low=0))
        images = materialize(_average(images, axis, weights))
    return images


def _gaussian(size, sigma):
    """Weights that sum to 1: `[N, size]`."""
    distance = (jnp.arange(size) - size // 2)[None]
    # Avoids 0 / 0: at sigma 0 all weight is in the middle.
    scale = jnp.maximum(sigma, 1e-6)[:, None]
    return jax.nn.softmax(-0.5 * (distance / scale) ** 2, axis=1)


def _average(images, axis, weights):
    length = images.shape[axis]
    size = weights.shape[1]
    padding = [(0, 0)] * 4
    padding[axis] = (size // 2, size // 2)
    padded = jnp.pad(images, padding, mode="reflect")
    total = 0
    for tap in range(size):
        pixels = jax.lax.slice_in_dim(padded, tap, tap + length, axis=axis)
        total += per_pixel(weights[:, tap]) * pixels
    return jnp.asarray(total)
