"""RandAugment as EfficientNet's and the Noisy Student's code has it."""

import jax
import numpy as np

from cnn_flax.augment.policy_space import Space, draw_operations
from cnn_flax.augment.policy_table import apply_operations
from cnn_flax.augment.prng import Draw, image_keys

__all__ = ["draw_noisy_student_augment", "noisy_student_augment"]

# Strengths are stated for a magnitude of 10; more goes beyond them.
_UNIT = 10


def noisy_student_augment(
    key: jax.Array,
    images: jax.Array,
    num_ops: int = 2,
    magnitude: float = 27,
    interpolation: str = "bilinear",
    fill: float | tuple[float, ...] = 128 / 255,
) -> jax.Array:
    """Draws a few of 16 operations for each image, stronger than RandAugment's.

    Xie et al. 2020, "Self-training with Noisy Student improves ImageNet
    classification", https://arxiv.org/abs/1911.04252, section 3.1: two operations of
    magnitude 27. Operations and magnitudes are those of the code of EfficientNet, on
    which the paper builds: they are stated for 10, so that 27 turns by up to 81
    degrees, and leaves `posterize` and `solarize` without effect. Two differences: that
    code reads the nearest pixel, and blends, for contrast, with the number of pixels
    divided by 256 where we take the mean grey.

    Args:
      key: one key, or one an image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      num_ops: operations an image; one may come twice.
      magnitude: from 0, the weakest; the code's users have 5 to 30.
      interpolation: "bilinear" or "nearest".
      fill: what lies outside the image, and in a `cutout`: a number, or one a channel.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `num_ops` is not above 0, or `magnitude` is below 0.
    """
    draw = draw_noisy_student_augment(*image_keys(key, images), num_ops, magnitude)
    return apply_operations(images, **draw, interpolation=interpolation, fill=fill)


def draw_noisy_student_augment(
    key: jax.Array, n: int, num_ops: int = 2, magnitude: float = 27
) -> Draw:
    """Arguments of `apply_operations`: `operation`, `strength` and `place`.

    Args:
      key: one key, or one an image `[n]`.
      n: how many images.
      num_ops: see `noisy_student_augment`.
      magnitude: see `noisy_student_augment`.

    Raises:
      ValueError: as `noisy_student_augment`.
    """
    if num_ops < 1:
        raise ValueError(f"num_ops must be at least 1, got {num_ops}.")
    if not magnitude >= 0:
        raise ValueError(f"magnitude must be at least 0, got {magnitude}.")
    return draw_operations(key, n, _space(magnitude / _UNIT), num_ops, 0)


def _space(share: float) -> Space:
    """The operations at `share` of the strengths that are stated."""
    enhance = 1.8 * share + 0.1 - 1
    strengths: dict[str, tuple[float, bool]] = {
        "autocontrast": (0, False),
        "equalize": (0, False),
        "invert": (0, False),
        "rotate": (30 * share, True),
        "posterize": (min(int(4 * share), 8), False),
        "solarize": (int(256 * share) / 255, False),
        "color": (enhance, False),
        "contrast": (enhance, False),
        "brightness": (enhance, False),
        "sharpness": (enhance, False),
        "shear_x": (0.3 * share, True),
        "shear_y": (0.3 * share, True),
        "translate_x": (100 * share, True),
        "translate_y": (100 * share, True),
        "cutout": (int(40 * share), False),
        "solarize_add": (int(110 * share) / 255, False),
    }
    return {
        name: (np.array([value]), signed) for name, (value, signed) in strengths.items()
    }
