"""From a batch of pixels to what the model sees, inside the jitted step."""

from collections.abc import Callable, Sequence
from functools import partial

import jax

from cnn_flax import augment
from train.config import Augment

__all__ = ["Batch", "eval_inputs", "train_inputs"]

Batch = dict[str, jax.Array]


def eval_inputs(
    images: jax.Array, *, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """Normalises `uint8 [N, H, W, C]` to floats, as in evaluation.

    They are float32, as everywhere here, or float64 under `JAX_ENABLE_X64`.

    Args:
      images: pixels, 0 to 255.
      mean: one number a channel, for pixels in [0, 1].
      std: one number a channel, likewise.
    """
    return augment.normalize(_scale(images), mean, std)


def train_inputs(
    options: Augment,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: int | None = None,
) -> Callable[[jax.Array, Batch], Batch]:
    """Augments, then normalises, as in training.

    Args:
      options: the random changes.
      mean: one number a channel, for pixels in [0, 1].
      std: one number a channel, likewise.
      size: height and width of the result, where the images are larger by what is cut
        off; None keeps their size.

    Returns:
      A function of keys, one an image, and a batch of `image` `uint8 [N, H, W, C]` and
      `label` `int32 [N]`; it returns the batch with `image` as floats.
    """

    def prepare(keys, batch):
        images = _scale(batch["image"])
        keys = jax.vmap(partial(jax.random.split, num=2))(keys)
        _, height, width, _ = images.shape
        window = (height, width) if size is None else (size, size)
        if options.crop_scale:
            scale = (options.crop_scale, 1.0)
            images = augment.random_resized_crop(keys[:, 0], images, window, scale)
        elif options.crop_padding or window != (height, width):
            padding = options.crop_padding
            images = augment.random_crop(keys[:, 0], images, window, padding)
        if options.flip:
            images = augment.random_horizontal_flip(keys[:, 1], images, options.flip)
        return {**batch, "image": augment.normalize(images, mean, std)}

    return prepare


def _scale(images: jax.Array) -> jax.Array:
    return images.astype(float) / 255
