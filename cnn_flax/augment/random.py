"""Keys of the random operations."""

import jax
import jax.numpy as jnp

__all__ = ["keys_per_image"]


def keys_per_image(key: jax.Array, images: jax.Array) -> jax.Array:
    """One key an image, `[N]`, so that its draw depends on no other image.

    Args:
      key: one key, from which each image's follows by its position in the batch, or
        one an image already, as they are.
      images: `[N, ...]`.

    Raises:
      ValueError: if there are keys for another number of images.
    """
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(images)))
    if key.shape != images.shape[:1]:
        raise ValueError(
            f"There are keys of shape {key.shape} for {len(images)} images."
        )
    return key
