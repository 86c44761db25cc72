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
    num_classes: int | None = None,
) -> Callable[[jax.Array, Batch, jax.Array], Batch]:
    """Augments and normalises, as in training.

    What is drawn for an image follows from its key, for a pair from its first image's;
    the batch's key decides only between Mixup and CutMix. So the rows of a batch may
    lie on any devices.

    Args:
      options: the random changes.
      mean: one number a channel, for pixels in [0, 1].
      std: one number a channel, likewise.
      size: height and width of the result, where the images are larger by what is cut
        off; None keeps their size.
      num_classes: K, where images are mixed.

    Returns:
      A function of keys, one an image, of a batch of `image` `uint8 [N, H, W, C]` and
      `label` `int32 [N]`, and of the batch's key. It returns the batch with `image` as
      floats, and with `label` as probabilities `[N, K]` where images are mixed.
    """

    def prepare(keys, batch, key):
        images, labels = _scale(batch["image"]), batch["label"]
        keys = jax.vmap(partial(jax.random.split, num=6))(keys)
        key_crop, key_flip, key_vertical, key_policy, key_erase, key_mix = keys.T
        _, height, width, _ = images.shape
        window = (height, width) if size is None else (size, size)
        if options.crop_scale and not options.crop_at_decode:
            scale = (options.crop_scale, 1.0)
            images = augment.random_resized_crop(key_crop, images, window, scale)
        elif options.crop_padding or window != (height, width):
            padding = options.crop_padding
            images = augment.random_crop(key_crop, images, window, padding)
        if options.flip:
            images = augment.random_horizontal_flip(key_flip, images, options.flip)
        if options.vertical_flip:
            images = augment.random_vertical_flip(
                key_vertical, images, options.vertical_flip
            )
        images = _policy(options, key_policy, images)
        images = augment.normalize(images, mean, std)
        if options.erase:  # With 0, which is the mean now.
            images = augment.random_erasing(key_erase, images, p=options.erase)
        if options.pairs:
            images, labels = _mix(options, key, key_mix, images, labels, num_classes)
        return {**batch, "image": images, "label": labels}

    return prepare


def _policy(options: Augment, keys: jax.Array, images: jax.Array) -> jax.Array:
    count, magnitude = options.operations, options.magnitude
    match options.policy:
        case "none":
            return images
        case "rand_augment":
            return augment.rand_augment(keys, images, count, magnitude)
        case "trivial_augment":
            return augment.trivial_augment(keys, images)
        case "augmix":
            return augment.augmix(keys, images)
        case "noisy_student":
            return augment.noisy_student_augment(keys, images, count, magnitude)
        case name:
            policy = name.removeprefix("auto_augment_")
            return augment.auto_augment(keys, images, policy)


def _mix(
    options: Augment,
    key: jax.Array,
    keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    num_classes: int | None,
) -> tuple[jax.Array, jax.Array]:
    if not options.cutmix:
        return augment.mixup(keys, images, labels, options.mixup, num_classes)
    if not options.mixup:
        return augment.cutmix(keys, images, labels, options.cutmix, num_classes)
    return augment.cutmix_or_mixup(
        key, images, labels, options.cutmix, options.mixup, num_classes, keys=keys
    )


def _scale(images: jax.Array) -> jax.Array:
    return images.astype(float) / 255
