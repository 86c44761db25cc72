"""Operations on the values of pixels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

__all__ = ["normalize"]


def normalize(
    images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """`(images - mean) / std`, channel by channel, as torchvision's.

    Args:
      images: float `[..., H, W, C]`.
      mean: one number a channel.
      std: one number a channel, above 0.

    Returns:
      `[..., H, W, C]`.

    Raises:
      ValueError: if there is not one number a channel, or a `std` is not above 0.
    """
    channels = images.shape[-1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(
            f"Images of {channels} channels take as many means and standard "
            f"deviations above 0, got {tuple(mean)} and {tuple(std)}."
        )
    shape = (*[1] * (images.ndim - 1), channels)
    mean_, std_ = (jnp.array(v, images.dtype).reshape(shape) for v in (mean, std))
    return (images - mean_) / std_
