"""RandAugment as in the code of EfficientNet and Noisy Student."""

import jax
import numpy as np

from cnn_flax.augment.policy_space import Space, draw_operations
from cnn_flax.augment.policy_table import apply_operations
from cnn_flax.augment.prng import Draw, image_keys

__all__ = ["draw_noisy_student_augment", "noisy_student_augment"]

# Strengths are given for magnitude 10; larger magnitudes exceed them.
_UNIT = 10


def noisy_student_augment(
    key: jax.Array,
    images: jax.Array,
    num_ops: int = 2,
    magnitude: float = 27,
    interpolation: str = "bilinear",
    fill: float | tuple[float, ...] = 128 / 255,
) -> jax.Array:
    """Applies a few of 16 operations to each image, stronger than RandAugment's.

    Xie et al. 2020, "Self-training with Noisy Student improves ImageNet
    classification", https://arxiv.org/abs/1911.04252, section 3.1: two operations of
    magnitude 27. Operations and magnitudes are those of EfficientNet's code, on which
    the paper builds. They are given for magnitude 10: at 27 images rotate by up to 81
    degrees, and `posterize` and `solarize` have no effect. Two differences: that code
    samples the nearest pixel; and its contrast blends with the number of pixels divided
    by 256, ours with the mean grey.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      num_ops: operations per image, drawn with replacement.
      magnitude: at least 0, the weakest; 5 to 30 are usual.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image and in a `cutout`: a number, or one per channel.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `num_ops` is below 1, or `magnitude` is below 0.
    """
    draw = draw_noisy_student_augment(*image_keys(key, images), num_ops, magnitude)
    return apply_operations(images, **draw, interpolation=interpolation, fill=fill)


def draw_noisy_student_augment(
    key: jax.Array, n: int, num_ops: int = 2, magnitude: float = 27
) -> Draw:
    """Arguments of `apply_operations`: `operation`, `strength` and `place`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      num_ops: see `noisy_student_augment`.
      magnitude: see `noisy_student_augment`.

    Raises:
      ValueError: same as `noisy_student_augment`.
    """
    if num_ops < 1:
        raise ValueError(f"num_ops must be at least 1, got {num_ops}.")
    if not magnitude >= 0:
        raise ValueError(f"magnitude must be at least 0, got {magnitude}.")
    return draw_operations(key, n, _space(magnitude / _UNIT), num_ops, 0)


def _space(scale: float) -> Space:
    """The operations at `scale` times their strengths at magnitude 10."""
    enhance = 1.8 * scale + 0.1 - 1
    strengths: dict[str, tuple[float, bool]] = {
        "autocontrast": (0, False),
        "equalize": (0, False),
        "invert": (0, False),
        "rotate": (30 * scale, True),
        "posterize": (min(int(4 * scale), 8), False),
        "solarize": (int(256 * scale) / 255, False),
        "color": (enhance, False),
        "contrast": (enhance, False),
        "brightness": (enhance, False),
        "sharpness": (enhance, False),
        "shear_x": (0.3 * scale, True),
        "shear_y": (0.3 * scale, True),
        "translate_x": (100 * scale, True),
        "translate_y": (100 * scale, True),
        "cutout": (int(40 * scale), False),
        "solarize_add": (int(110 * scale) / 255, False),
    }
    return {
        name: (np.array([value]), signed) for name, (value, signed) in strengths.items()
    }
