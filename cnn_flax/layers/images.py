"""What every model does first: look at its input, and cast it."""

import jax
import jax.numpy as jnp
from flax.typing import Dtype

__all__ = ["as_images"]


def as_images(images: jax.Array, dtype: Dtype, min_size: int = 1) -> jax.Array:
    """Images `[N, H, W, C]` in `dtype`; what is no batch of images is refused.

    Args:
      images: float `[N, H, W, C]`.
      dtype: what they are cast to.
      min_size: height and width, in pixels, below which no map would be left.

    Raises:
      ValueError: if `images` is not of rank 4, empty, or smaller than `min_size`.
      TypeError: if `images` are not floats.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(
            f"Images are [N, H, W, C], got shape {images.shape}"
            + ("; a single image is images[None]." if images.ndim == 3 else ".")
        )
    if min(images.shape[1:3]) < min_size:
        raise ValueError(
            f"Images are {min_size} x {min_size} px at least, got "
            f"{images.shape[1]} x {images.shape[2]}."
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"Images are floats, normalised as the weights expect; got {images.dtype}."
        )
    return images.astype(dtype)
