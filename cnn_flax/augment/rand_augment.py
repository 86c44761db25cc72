"""RandAugment and TrivialAugment: uniformly drawn operations, without a search."""

import jax

from cnn_flax.augment.policy_space import Space, draw_operations, strengths
from cnn_flax.augment.policy_table import apply_operations
from cnn_flax.augment.prng import Draw, image_keys
from cnn_flax.layers.arguments import whole_number

__all__ = [
    "draw_rand_augment",
    "draw_trivial_augment",
    "rand_augment",
    "trivial_augment",
]

_NAMES = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "color", "contrast", "sharpness", "posterize", "solarize"),
    *("autocontrast", "equalize"),
)


def rand_augment(
    key: jax.Array,
    images: jax.Array,
    num_ops: int = 2,
    magnitude: int = 9,
    num_magnitude_bins: int = 31,
    interpolation: str = "bilinear",
    fill: float | tuple[float, ...] = 0,
) -> jax.Array:
    """Applies a few of 14 operations to each image, all at one magnitude.

    Cubuk et al. 2019, "RandAugment: Practical automated data augmentation with a
    reduced search space", https://arxiv.org/abs/1909.13719. Operations and magnitudes
    are those of torchvision's `RandAugment`, whose interpolation is "nearest" by
    default. Values are not rounded to 256 levels between operations.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      num_ops: operations per image, drawn with replacement.
      magnitude: index of the magnitude; 0 is the weakest.
      num_magnitude_bins: number of magnitudes.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image: a number, or one per channel.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `num_ops` is below 1, or `magnitude` is out of range.
    """
    draw = draw_rand_augment(
        *(*image_keys(key, images), images.shape[-3:]),
        *(num_ops, magnitude, num_magnitude_bins),
    )
    return apply_operations(images, **draw, interpolation=interpolation, fill=fill)


def trivial_augment(
    key: jax.Array,
    images: jax.Array,
    num_magnitude_bins: int = 31,
    interpolation: str = "bilinear",
    fill: float | tuple[float, ...] = 0,
) -> jax.Array:
    """Applies one of 14 operations to each image, at a magnitude drawn too.

    Müller and Hutter 2021, "TrivialAugment: Tuning-free yet state-of-the-art data
    augmentation", https://arxiv.org/abs/2103.10158, the wide search space. Operations
    and magnitudes are those of torchvision's `TrivialAugmentWide`, whose interpolation
    is "nearest" by default.

    Args:
      key: one key, or one per image `[N]`.
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      num_magnitude_bins: number of magnitudes.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image: a number, or one per channel.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `num_magnitude_bins` is below 2.
    """
    draw = draw_trivial_augment(*image_keys(key, images), num_magnitude_bins)
    return apply_operations(images, **draw, interpolation=interpolation, fill=fill)


def draw_rand_augment(
    key: jax.Array,
    n: int,
    shape: tuple[int, ...],
    num_ops: int = 2,
    magnitude: int = 9,
    num_magnitude_bins: int = 31,
) -> Draw:
    """Arguments of `apply_operations`: `operation` and `strength`, `[n, num_ops]`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      shape: (H, W, C) of an image.
      num_ops: see `rand_augment`.
      magnitude: see `rand_augment`.
      num_magnitude_bins: see `rand_augment`.

    Raises:
      ValueError: same as `rand_augment`.
    """
    num_ops = whole_number("num_ops", num_ops)
    magnitude = whole_number("magnitude", magnitude, least=None)
    num_magnitude_bins = whole_number("num_magnitude_bins", num_magnitude_bins, least=2)
    if not 0 <= magnitude < num_magnitude_bins:
        raise ValueError(
            f"magnitude must be in [0, {num_magnitude_bins}) for num_magnitude_bins="
            f"{num_magnitude_bins}; got {magnitude}."
        )
    space = _rand_augment_space(num_magnitude_bins, shape)
    return draw_operations(key, n, space, num_ops, magnitude)


def draw_trivial_augment(key: jax.Array, n: int, num_magnitude_bins: int = 31) -> Draw:
    """Arguments of `apply_operations`: `operation` and `strength`, `[n, 1]`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      num_magnitude_bins: see `trivial_augment`.

    Raises:
      ValueError: same as `trivial_augment`.
    """
    return draw_operations(key, n, _trivial_augment_space(num_magnitude_bins), 1)


def _rand_augment_space(bins: int, shape: tuple[int, ...]) -> Space:
    """Same as torchvision's `RandAugment._augmentation_space`."""
    height, width = shape[:2]
    move = (150 / 331 * width, 150 / 331 * height)
    return strengths(
        _NAMES, bins, shear=0.3, move=move, degrees=30, factor=0.9, keep=(8, 4)
    )


def _trivial_augment_space(bins: int) -> Space:
    """Same as torchvision's `TrivialAugmentWide._augmentation_space`."""
    return strengths(
        _NAMES, bins, shear=0.99, move=(32, 32), degrees=135, factor=0.99, keep=(8, 6)
    )
