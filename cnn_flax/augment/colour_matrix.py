"""Affine changes of colour as matrices, and the one pass that carries them out.

A matrix `[N, C, C + 1]` makes of a colour `x` the colour `A @ x + b`, where `b` is its
last column. Several changes are one: `chain_colours`. What depends on the image's mean
(contrast) takes the mean at that point of the chain, which follows from the first one:
`shift_colour`.
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

# ITU-R BT.601, to the four digits that torchvision has; their sum is 0.9999.
_GREY = (0.2989, 0.587, 0.114)


def check_colours(channels: int) -> None:
    """Raises `ValueError` for what is neither grey nor red, green and blue."""
    if channels not in (1, 3):
        raise ValueError(f"Images have 1 or 3 channels, got {channels}.")


def grey_of(colours: jax.Array) -> jax.Array:
    """The grey of colours: `[..., 1 or 3] -> [..., 1]`."""
    if colours.shape[-1] == 1:
        return colours
    # Written out: a sum over the last axis is many times slower.
    red, green, blue = (colours[..., k : k + 1] * _GREY[k] for k in range(3))
    return red + green + blue


def mean_colour(images: jax.Array) -> jax.Array:
    """`[N, H, W, C] -> [N, C]`."""
    n, height, width, channels = images.shape
    # Whole rows first: a sum that leaves only channels is many times slower.
    rows = images.reshape(n, height, width * channels).mean(1)
    return rows.reshape(n, width, channels).mean(1)


@image_operation
def change_colours(images: jax.Array, matrices: jax.Array) -> jax.Array:
    """`A @ x + b` of each pixel.

    Args:
      images: float `[N, H, W, C]`.
      matrices: `[N, C, C + 1]`.

    Returns:
      `[N, H, W, C]`, not clipped.
    """
    channels = images.shape[-1]
    weights = matrices[:, None, None]
    # Written out: a product over three channels is many times slower.
    total = weights[..., channels]
    for k in range(channels):
        total = total + images[..., k : k + 1] * weights[..., k]
    return total


def chain_colours(first: jax.Array, then: jax.Array) -> jax.Array:
    """The one change that two make: `[N, C, C + 1]`."""
    channels = first.shape[1]
    product = jnp.matmul(then[..., :channels], first, precision="highest")
    return product.at[..., channels].add(then[..., channels])


def shift_colour(matrices: jax.Array, colours: jax.Array) -> jax.Array:
    """What matrices `[N, C, C + 1]` make of one colour an image, `[N, C]`."""
    ones = jnp.ones_like(colours[:, :1])
    places = jnp.concatenate([colours, ones], 1)[..., None]
    return jnp.matmul(matrices, places, precision="highest")[..., 0]


def identity_colours(n: int, channels: int) -> jax.Array:
    """No change: `[n, C, C + 1]`."""
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
    """`1 - x` where true; `where` is `[N]`."""
    where = where.astype(float)
    matrix = brightness_matrix(1 - 2 * where, channels)
    return matrix.at[..., channels].add(where[:, None])
