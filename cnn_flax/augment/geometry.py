"""Operations that move pixels."""

from functools import partial

import jax
import jax.numpy as jnp

from cnn_flax.augment.random import keys_per_image

__all__ = [
    "horizontal_flip",
    "random_crop",
    "random_horizontal_flip",
    "random_resized_crop",
    "resized_crop",
]

_ATTEMPTS = 10  # To draw a window that fits, as torchvision has it.


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


def resized_crop(
    images: jax.Array, boxes: jax.Array, size: int | tuple[int, int]
) -> jax.Array:
    """Cuts a window out of each image and resizes it, bilinearly.

    torchvision's `resized_crop` with `antialias=False`: nothing outside the window is
    looked at.

    Args:
      images: float `[N, H, W, C]` in [0, 1].
      boxes: int `[N, 4]`: top, left, height and width of each window, which lies in
        the image.
      size: height and width of the result, in pixels.

    Returns:
      `[N, *size, C]`.

    Raises:
      ValueError: if there is not a box an image.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if boxes.shape != (len(images), 4):
        raise ValueError(
            f"There are boxes of shape {boxes.shape} for {len(images)} images."
        )

    def cut(image, box):
        # A gather of rows, then one of columns; under vmap both keep N as a batch
        # dimension, so that a mesh does not gather the batch.
        image = _sample(image, box[0], box[2], height)
        return _sample(image.swapaxes(0, 1), box[1], box[3], width).swapaxes(0, 1)

    return jax.vmap(cut)(images, boxes)


def _sample(
    image: jax.Array, start: jax.Array, length: jax.Array, size: int
) -> jax.Array:
    """`size` rows, evenly spread over those from `start` on: `[H, ...] -> [size, ...]`.

    A row lies at its middle; between two rows they are mixed.
    """
    at = (jnp.arange(size) + 0.5) * (length / size) - 0.5
    at = jnp.clip(at, 0, length - 1)
    low = jnp.floor(at).astype(jnp.int32)
    high = jnp.minimum(low + 1, length - 1)
    share = (at - low).astype(image.dtype).reshape(-1, *[1] * (image.ndim - 1))
    take = partial(jnp.take, image, axis=0, mode="clip")
    return take(start + low) * (1 - share) + take(start + high) * share


def random_resized_crop(
    key: jax.Array,
    images: jax.Array,
    size: int | tuple[int, int],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Cuts a window of random area and proportions out of each image and resizes it.

    Szegedy et al. 2014, "Going deeper with convolutions",
    https://arxiv.org/abs/1409.4842, section 6; drawn as torchvision's
    `RandomResizedCrop`: ten attempts at a window that fits, then the largest in the
    centre whose proportions are in `ratio`.

    Args:
      key: one key, or one an image `[N]`.
      images: float `[N, H, W, C]` in [0, 1].
      size: height and width of the result, in pixels.
      scale: range of the window's share of the image's area, in (0, 1].
      ratio: range of its width over its height, drawn evenly in the logarithm.

    Returns:
      `[N, *size, C]`.

    Raises:
      ValueError: if a range is not one.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale must be a range in (0, 1], got {scale}.")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio must be a range above 0, got {ratio}.")
    _, height, width, _ = images.shape
    draw = partial(_draw_box, height=height, width=width, scale=scale, ratio=ratio)
    boxes = jax.vmap(draw)(keys_per_image(key, images))
    return resized_crop(images, boxes, size)


def _draw_box(
    key: jax.Array,
    *,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> jax.Array:
    """Top, left, height and width of a window: int32 `[4]`."""
    key_area, key_ratio, key_top, key_left = jax.random.split(key, 4)
    low, high = scale
    area = jax.random.uniform(key_area, (_ATTEMPTS,), minval=low, maxval=high)
    area = area * (height * width)
    low, high = jnp.log(jnp.array(ratio))
    log_ratio = jax.random.uniform(key_ratio, (_ATTEMPTS,), minval=low, maxval=high)
    sides = jnp.stack([area / jnp.exp(log_ratio), area * jnp.exp(log_ratio)])
    heights, widths = jnp.round(jnp.sqrt(sides)).astype(jnp.int32)
    fits = (0 < heights) & (heights <= height) & (0 < widths) & (widths <= width)
    first, found = jnp.argmax(fits), fits.any()

    # The largest in the centre.
    all_height = min(height, max(round(width / ratio[0]), 1))
    all_width = min(width, max(round(height * ratio[1]), 1))
    h = jnp.where(found, heights[first], all_height)
    w = jnp.where(found, widths[first], all_width)
    top = jax.random.randint(key_top, (), 0, height - h + 1)
    left = jax.random.randint(key_left, (), 0, width - w + 1)
    top = jnp.where(found, top, (height - h) // 2)
    left = jnp.where(found, left, (width - w) // 2)
    return jnp.stack([top, left, h, w]).astype(jnp.int32)
