"""Preparation of a batch of pixels for the model, inside the jitted step."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from cnn_flax import augment
from train.config import Augment, Unlabelled

__all__ = [
    "Batch",
    "Prepare",
    "eval_inputs",
    "train_inputs",
    "two_streams",
    "two_views",
    "weakly_augmented",
]

Batch = dict[str, Any]
# A function of keys, one per image, a batch, and the batch's own key.
Prepare = Callable[[Any, Batch, jax.Array], Batch]


def eval_inputs(
    images: jax.Array, *, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """Normalises `uint8 [N, H, W, C]` to floats, without augmentation.

    The result is float32, or float64 under `JAX_ENABLE_X64`.

    Args:
      images: pixels, 0 to 255.
      mean: subtracted from pixels in [0, 1], one value per channel.
      std: pixels are then divided by it, one value per channel.
    """
    return augment.normalize(_scale(images), mean, std)


def train_inputs(
    options: Augment,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: int | None = None,
    num_classes: int | None = None,
) -> Prepare:
    """Builds the augmentation and normalisation of training.

    The random draws of an image follow from its key, those of a pair from the key of
    its first image; the batch's key only decides between Mixup and CutMix. The rows of
    a batch may therefore be on any devices.

    Args:
      options: the augmentation.
      mean: subtracted from pixels in [0, 1], one value per channel.
      std: pixels are then divided by it, one value per channel.
      size: height and width of the windows that are cropped from larger images; None
        keeps the images' size.
      num_classes: K; required if images are mixed.

    Returns:
      A function of keys, one per image, a batch of `image` `uint8 [N, H, W, C]` and
      `label`, `int32 [N]`, or probabilities or several classes `[N, K]`, and the
      batch's key. It returns the batch with `image` as floats and, if images are mixed,
      `label` as `[N, K]`.
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
        if options.erase:  # To 0, which is the mean after normalisation.
            images = augment.random_erasing(key_erase, images, p=options.erase)
        if options.pairs:
            images, labels = _mix(options, key, key_mix, images, labels, num_classes)
            if options.mixed_labels == "max":
                labels = (labels > 0).astype(labels.dtype)
        return {**batch, "image": images, "label": labels}

    return prepare


def two_streams(labelled: Prepare, unlabelled: Prepare) -> Prepare:
    """Prepares the labelled images and those in the batch's `unlabelled`."""

    def prepare(keys, batch, key):
        first = {name: rows for name, rows in batch.items() if name != "unlabelled"}
        first = labelled(keys["labelled"], first, jax.random.fold_in(key, 0))
        second = batch["unlabelled"]
        second = unlabelled(keys["unlabelled"], second, jax.random.fold_in(key, 1))
        return {**first, "unlabelled": second}

    return prepare


def two_views(options: Augment, strong: Unlabelled, **inputs: Any) -> Prepare:
    """Prepares a weakly and a strongly augmented view of each image.

    The weak view, `image`, has only the crop and flips of training. The strong view,
    `strong`, also has RandAugment and random erasing: Sohn et al. 2020,
    https://arxiv.org/abs/2001.07685, section 2.3.

    Args:
      options: the augmentation of training.
      strong: the strength of the strong view.
      **inputs: further arguments of `train_inputs`.
    """
    weakly = weakly_augmented(options)
    strongly = dataclasses.replace(
        weakly,
        policy="rand_augment",
        operations=strong.strong_operations,
        magnitude=strong.strong_magnitude,
        erase=strong.strong_erase,
    )
    weak_view = train_inputs(weakly, **inputs)
    strong_view = train_inputs(strongly, **inputs)

    def prepare(keys, batch, key):
        key_weak, key_strong = jax.vmap(jax.random.split)(keys).T
        strong_images = strong_view(key_strong, batch, key)["image"]
        return {**weak_view(key_weak, batch, key), "strong": strong_images}

    return prepare


def weakly_augmented(options: Augment) -> Augment:
    """The crop and flips of this augmentation alone."""
    return dataclasses.replace(options, policy="none", erase=0, mixup=0, cutmix=0)


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
