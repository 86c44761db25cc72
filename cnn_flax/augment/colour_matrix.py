"""Affine colour transforms as matrices, applied in one pass.

A matrix `[N, C, C + 1]` maps a colour `x` to `A @ x + b`, where `b` is its last column.
`chain_colours` multiplies several into one. Contrast depends on the mean colour at its
point of the chain; `shift_colour` computes it from the mean of the images.
"""

import jax
import jax.numpy as jnp

from cnn_flax.augment.arguments import image_operation

__all__ = [
    "brightness_matrix",
    "chain_colours",
    "change_colours",
    "check_colours",
    "contrast_matrix",
    "grey_of",
    "identity_colours",
    "inversion_matrix",
    "mean_colour",
    "saturation_matrix",
    "shift_colour",
]

# ITU-R BT.601, to four digits as in torchvision; the sum is 0.9999.
_GREY = (0.2989, 0.587, 0.114)


def check_colours(channels: int) -> None:
    """Raises `ValueError` unless images are grey (1 channel) or RGB (3)."""
    if channels not in (1, 3):
        raise ValueError(f"Images must have 1 or 3 channels, got {channels}.")


def grey_of(colours: jax.Array) -> jax.Array:
    """Converts colours to grey: `[..., 1 or 3] -> [..., 1]`."""
    if colours.shape[-1] == 1:
        return colours
    # Unrolled: a sum over the last axis is many times slower.
    red, green, blue = (colours[..., k : k + 1] * _GREY[k] for k in range(3))
    return red + green + blue


def mean_colour(images: jax.Array) -> jax.Array:
    """Mean colour per image: `[N, H, W, C] -> [N, C]`."""
    n, height, width, channels = images.shape
    # Sum rows first: reducing to channels in one step is many times slower.
    rows = images.reshape(n, height, width * channels).mean(1)
    return rows.reshape(n, width, channels).mean(1)


@image_operation
def change_colours(images: jax.Array, matrices: jax.Array) -> jax.Array:
    """Maps each pixel `x` to `A @ x + b`.

    Args:
      images: float `[N, H, W, C]`.
      matrices: `[N, C, C + 1]`.

    Returns:
      `[N, H, W, C]`, not clipped.
    """
    channels = images.shape[-1]
    weights = matrices[:, None, None]
    # Unrolled: a matrix product over three channels is many times slower.
    total = weights[..., channels]
    for k in range(channels):
        total = total + images[..., k : k + 1] * weights[..., k]
    return total


def chain_colours(first: jax.Array, then: jax.Array) -> jax.Array:
    """Composes two transforms, `first` applied first: `[N, C, C + 1]`."""
    channels = first.shape[1]
    product = jnp.matmul(then[..., :channels], first, precision="highest")
    return product.at[..., channels].add(then[..., channels])


def shift_colour(matrices: jax.Array, colours: jax.Array) -> jax.Array:
    """Applies matrices `[N, C, C + 1]` to one colour per image, `[N, C]`."""
    ones = jnp.ones_like(colours[:, :1])
    homogeneous = jnp.concatenate([colours, ones], 1)[..., None]
    return jnp.matmul(matrices, homogeneous, precision="highest")[..., 0]


def identity_colours(n: int, channels: int) -> jax.Array:
    """Identity transforms: `[n, C, C + 1]`."""
    return jnp.broadcast_to(
        jnp.eye(channels, channels + 1), (n, channels, channels + 1)
    )


def brightness_matrix(factor: jax.Array, channels: int) -> jax.Array:
    """Multiplies by `factor`, `[N]`."""
    return factor[:, None, None] * jnp.eye(channels, channels + 1)[None]


def contrast_matrix(factor: jax.Array, mean: jax.Array) -> jax.Array:
    """Blends with the grey of the mean colour `[N, C]`; `factor` is `[N]`."""
    offset = (1 - factor)[:, None] * grey_of(mean)
    channels = mean.shape[1]
    matrix = brightness_matrix(factor, channels)
    return matrix.at[..., channels].add(offset)


def saturation_matrix(factor: jax.Array, channels: int) -> jax.Array:
    """Blends with each pixel's grey; `factor` is `[N]`."""
    if channels == 1:
        return identity_colours(len(factor), 1)
    grey = jnp.tile(jnp.array([*_GREY, 0.0])[None], (3, 1))
    factor = factor[:, None, None]
    return factor * jnp.eye(3, 4)[None] + (1 - factor) * grey[None]


def inversion_matrix(where: jax.Array, channels: int) -> jax.Array:
    """Inverts, `1 - x`, where `where` `[N]` is true."""
    where = where.astype(float)
    matrix = brightness_matrix(1 - 2 * where, channels)
    return matrix.at[..., channels].add(where[:, None])
