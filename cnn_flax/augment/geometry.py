"""Operations that move pixels."""

import jax
import jax.numpy as jnp

from cnn_flax.augment.random import keys_per_image

__all__ = ["horizontal_flip", "random_crop", "random_horizontal_flip"]


def horizontal_flip(images: jax.Array) -> jax.Array:
    """Mirrors left and right: `[..., H, W, C]`, as torchvision's `hflip`."""
    return jnp.flip(images, axis=-2)


def random_horizontal_flip(
    key: jax.Array, images: jax.Array, p: float = 0.5
) -> jax.Array:
    """Mirrors each image with probability `p`.

    Args:
      key: one key, or one an image `[N]`.
      images: float `[N, H, W, C]` in [0, 1].
      p: probability, in [0, 1].

    Returns:
      `[N, H, W, C]`.

    Raises:
      ValueError: if `p` is outside [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must be in [0, 1], got {p}.")
    keys = keys_per_image(key, images)
    flip = jax.vmap(lambda k: jax.random.bernoulli(k, p))(keys)
    return jnp.where(flip[:, None, None, None], horizontal_flip(images), images)


def random_crop(
    key: jax.Array, images: jax.Array, size: int | tuple[int, int], padding: int = 0
) -> jax.Array:
    """Cuts a window out of each image, anywhere with equal probability.

    Args:
      key: one key, or one an image `[N]`.
      images: float `[N, H, W, C]` in [0, 1].
      size: height and width of the window, in pixels.
      padding: zeros around each image before the cut, in pixels.

    Returns:
      `[N, *size, C]`.

    Raises:
      ValueError: if the window is larger than the padded image.
    """
    height, width = (size, size) if isinstance(size, int) else size
    pad = (padding, padding)
    images = jnp.pad(images, ((0, 0), pad, pad, (0, 0)))
    room = jnp.array([images.shape[1] - height, images.shape[2] - width])
    if images.shape[1] < height or images.shape[2] < width:
        raise ValueError(
            f"A window of {height} x {width} does not fit into images of "
            f"{images.shape[1]} x {images.shape[2]} with their padding."
        )

    def cut(key, image):
        top, left = jax.random.randint(key, (2,), 0, room + 1)
        return jax.lax.dynamic_slice(
            image, (top, left, 0), (height, width, image.shape[2])
        )

    return jax.vmap(cut)(keys_per_image(key, images), images)
