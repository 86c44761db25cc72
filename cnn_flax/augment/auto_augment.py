"""AutoAugment: policies found by search on three data sets."""

import jax
import jax.numpy as jnp
import numpy as np

from cnn_flax.augment.policy_space import Space, strengths
from cnn_flax.augment.policy_table import OPERATIONS, apply_operations
from cnn_flax.augment.prng import Draw, draw_per_image, image_keys
from cnn_flax.registry import nearest

__all__ = ["auto_augment", "draw_auto_augment"]

_BINS = 10

# One pair per line: operation, probability, and a magnitude of 0 to 9 if it has one.
# From the paper's appendix, as in torchvision.
_POLICIES = {
    "imagenet": """
        posterize 0.4 8, rotate 0.6 9
        solarize 0.6 5, autocontrast 0.6
        equalize 0.8, equalize 0.6
        posterize 0.6 7, posterize 0.6 6
        equalize 0.4, solarize 0.2 4
        equalize 0.4, rotate 0.8 8
        solarize 0.6 3, equalize 0.6
        posterize 0.8 5, equalize 1
        rotate 0.2 3, solarize 0.6 8
        equalize 0.6, posterize 0.4 6
        rotate 0.8 8, color 0.4 0
        rotate 0.4 9, equalize 0.6
        equalize 0, equalize 0.8
        invert 0.6, equalize 1
        color 0.6 4, contrast 1 8
        rotate 0.8 8, color 1 2
        color 0.8 8, solarize 0.8 7
        sharpness 0.4 7, invert 0.6
        shear_x 0.6 5, equalize 1
        color 0.4 0, equalize 0.6
        equalize 0.4, solarize 0.2 4
        solarize 0.6 5, autocontrast 0.6
        invert 0.6, equalize 1
        color 0.6 4, contrast 1 8
        equalize 0.8, equalize 0.6
    """,
    "cifar10": """
        invert 0.1, contrast 0.2 6
        rotate 0.7 2, translate_x 0.3 9
        sharpness 0.8 1, sharpness 0.9 3
        shear_y 0.5 8, translate_y 0.7 9
        autocontrast 0.5, equalize 0.9
        shear_y 0.2 7, posterize 0.3 7
        color 0.4 3, brightness 0.6 7
        sharpness 0.3 9, brightness 0.7 9
        equalize 0.6, equalize 0.5
        contrast 0.6 7, sharpness 0.6 5
        color 0.7 7, translate_x 0.5 8
        equalize 0.3, autocontrast 0.4
        translate_y 0.4 3, sharpness 0.2 6
        brightness 0.9 6, color 0.2 8
        solarize 0.5 2, invert 0
        equalize 0.2, autocontrast 0.6
        equalize 0.2, equalize 0.6
        color 0.9 9, equalize 0.6
        autocontrast 0.8, solarize 0.2 8
        brightness 0.1 3, color 0.7 0
        solarize 0.4 5, autocontrast 0.9
        translate_y 0.9 9, translate_y 0.7 9
        autocontrast 0.9, solarize 0.8 3
        equalize 0.8, invert 0.1
        translate_y 0.7 9, autocontrast 0.9
    """,
    "svhn": """
        shear_x 0.9 4, invert 0.2
        shear_y 0.9 8, invert 0.7
        equalize 0.6, solarize 0.6 6
        invert 0.9, equalize 0.6
        equalize 0.6, rotate 0.9 3
        shear_x 0.9 4, autocontrast 0.8
        shear_y 0.9 8, invert 0.4
        shear_y 0.9 5, solarize 0.2 6
        invert 0.9, autocontrast 0.8
        equalize 0.6, rotate 0.9 3
        shear_x 0.9 4, solarize 0.3 3
        shear_y 0.8 8, invert 0.7
        equalize 0.9, translate_y 0.6 6
        invert 0.9, equalize 0.6
        contrast 0.3 3, rotate 0.8 4
        invert 0.8, translate_y 0 2
        shear_y 0.7 6, solarize 0.4 8
        invert 0.6, rotate 0.8 4
        shear_y 0.3 7, translate_x 0.9 3
        shear_x 0.1 6, invert 0.6
        solarize 0.7 2, translate_y 0.6 7
        shear_y 0.8 4, invert 0.8
        shear_x 0.7 9, translate_y 0.8 3
        shear_y 0.8 5, autocontrast 0.7
        shear_x 0.7 2, invert 0.1
    """,
}


def auto_augment(
    key: jax.Array,
    images: jax.Array,
    policy: str = "imagenet",
    interpolation: str = "bilinear",
    fill: float | tuple[float, ...] = 0,
) -> jax.Array:
    """Applies one of 25 pairs of operations to each image, each with its probability.

    Cubuk et al. 2018, "AutoAugment: Learning augmentation policies from data",
    https://arxiv.org/abs/1805.09501. Pairs and magnitudes are those of torchvision's
    `AutoAugment`, whose interpolation is "nearest" by default.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      policy: the data set it was found on: "imagenet", "cifar10" or "svhn".
      interpolation: "bilinear" or "nearest".
      fill: value outside the image: a number, or one per channel.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if the policy is unknown.
    """
    draw = draw_auto_augment(*image_keys(key, images), images.shape[-3:], policy)
    return apply_operations(images, **draw, interpolation=interpolation, fill=fill)


def draw_auto_augment(
    key: jax.Array, n: int, shape: tuple[int, ...], policy: str = "imagenet"
) -> Draw:
    """Arguments of `apply_operations`: `operation` and `strength`, `[n, 2]`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      shape: (H, W, C) of an image.
      policy: see `auto_augment`.

    Raises:
      ValueError: if the policy is unknown.
    """
    if policy not in _POLICIES:
        raise ValueError(
            f"There is no policy {policy!r}. {nearest(policy, _POLICIES)} "
            f"Policies: {', '.join(_POLICIES)}."
        )
    table = _table(policy, shape)
    operations, probabilities, strengths_, signed = map(jnp.asarray, table)

    def draw(key):
        key_pair, key_coins, key_signs = jax.random.split(key, 3)
        pair = jax.random.randint(key_pair, (), 0, len(operations))
        applies = jax.random.uniform(key_coins, (2,)) < probabilities[pair]
        negative = jax.random.bernoulli(key_signs, shape=(2,)) & signed[pair]
        strength = jnp.where(negative, -strengths_[pair], strengths_[pair])
        return {
            "operation": jnp.where(applies, operations[pair], 0),  # The identity.
            "strength": jnp.where(applies, strength, 0.0),
        }

    return draw_per_image(draw, key, n)


def _table(policy: str, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Operations, probabilities, strengths, and whether a sign is drawn: `[25, 2]`."""
    space, rows = _space(shape), []
    for line in _POLICIES[policy].strip().splitlines():
        for words in line.split(","):
            name, probability, *magnitude = words.split()
            steps, signed = space[name]
            strength = steps[int(magnitude[0]) if magnitude else 0]
            number = OPERATIONS.index(name)
            rows.append((number, float(probability), strength, signed))
    operation, probability, strength, signed = (
        np.array(column).reshape(-1, 2) for column in zip(*rows, strict=True)
    )
    return operation, probability, strength.astype(np.float32), signed


def _space(shape: tuple[int, ...]) -> Space:
    """Same as torchvision's `AutoAugment._augmentation_space`."""
    height, width = shape[:2]
    move = (150 / 331 * width, 150 / 331 * height)
    return strengths(
        OPERATIONS, _BINS, shear=0.3, move=move, degrees=30, factor=0.9, keep=(8, 4)
    )
