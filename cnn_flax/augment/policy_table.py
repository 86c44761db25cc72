"""The table of operations that policies draw from, and their application per image.

Names and strengths are torchvision's (`transforms.autoaugment`):

| operation | strength | range |
| --- | --- | --- |
| `identity`, `autocontrast`, `equalize`, `invert` | none | |
| `shear_x`, `shear_y` | tangent of the shear | any |
| `translate_x`, `translate_y` | pixels right, down | any |
| `rotate` | degrees counter-clockwise | any |
| `brightness`, `color`, `contrast`, `sharpness` | factor minus 1 | -1 or more |
| `posterize` | number of bits kept | 0 to 8 |
| `solarize` | threshold from which values are inverted | 0 to 1 |

Two more are from EfficientNet's RandAugment:

| operation | strength | range |
| --- | --- | --- |
| `solarize_add` | added to values below 128 / 255 | any |
| `cutout` | half the side of a square painted with the fill, in pixels | 0 or more |

A new operation on pixel values is one entry of `_VALUES`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cnn_flax.augment import colour, levels
from cnn_flax.augment.arguments import image_operation
from cnn_flax.augment.erasing import erase
from cnn_flax.augment.filters import adjust_sharpness
from cnn_flax.augment.homography import (
    rotation_matrix,
    shear_matrix,
    translation_matrix,
    warp,
)
from cnn_flax.augment.per_image_switch import switch_per_image

__all__ = [
    "OPERATIONS",
    "apply_operations",
]

_GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_VALUES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "brightness": lambda x, s: colour.adjust_brightness(x, 1 + s),
    "color": lambda x, s: colour.adjust_saturation(x, 1 + s),
    "contrast": lambda x, s: colour.adjust_contrast(x, 1 + s),
    "sharpness": lambda x, s: adjust_sharpness(x, 1 + s),
    "posterize": lambda x, s: levels.posterize(x, s.astype(int)),
    "solarize": colour.solarize,
    "autocontrast": lambda x, s: levels.autocontrast(x),
    "equalize": lambda x, s: levels.equalize(x),
    "invert": lambda x, s: colour.invert(x),
    "solarize_add": lambda x, s: jnp.where(x < 128 / 255, jnp.clip(x + s, 0, 1), x),
}
OPERATIONS = ("identity", *_GEOMETRY, *_VALUES, "cutout")
"""Names of the operations; draws are indices into this tuple."""

# One branch for the identity, one for all geometry, one for each other operation.
_BRANCH = np.maximum(np.arange(len(OPERATIONS)) - len(_GEOMETRY) + 1, 1)
_BRANCH[0] = 0


@image_operation
def apply_operations(
    images: jax.Array,
    operation: jax.Array,
    strength: jax.Array,
    place: jax.Array | None = None,
    interpolation: str = "bilinear",
    fill: float | tuple[float, ...] = 0,
) -> jax.Array:
    """Applies to each image its own operations, in sequence.

    On a CPU images are processed one by one, each by its operations only. On other
    devices they are processed together: one gather for all geometric operations, then
    each other operation, selected where it was drawn. On a mesh of CPU devices call it
    inside `jax.shard_map`; otherwise each device processes the whole batch.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      operation: L operations per image, in the order of application: indices into
        `OPERATIONS`, int `[N, L]`.
      strength: of each operation, float `[N, L]`.
      place: centre of a `cutout` as fractions of height and width, float `[N, L, 2]` in
        [0, 1); None: the middle.
      interpolation: "bilinear" or "nearest".
      fill: value outside the image: a number, or one per channel.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if `operation` is not `[N, L]`.
    """
    if operation.ndim != 2 or operation.shape[0] != len(images):
        raise ValueError(
            f"Got operations of shape {operation.shape} for {len(images)} images; the "
            f"shape must be ({len(images)}, L)."
        )
    if place is None:
        place = jnp.full((*operation.shape, 2), 0.5)
    branches = _branches(interpolation, fill)
    chosen = jnp.asarray(_BRANCH)[operation]
    return switch_per_image(images, branches, chosen, (operation, strength, place))


def _branches(interpolation, fill):
    """Functions of an image `[H, W, C]` and its (operation, strength, place)."""

    def move(image, drawn):
        matrix = _matrix(image.shape[:2], *drawn[:2])
        return warp(image, matrix, interpolation=interpolation, fill=fill)

    def change_values(change):
        return lambda image, drawn: change(image, drawn[1])

    def cutout(image, drawn):
        _, strength, place = drawn
        top, left = (
            jnp.floor(fraction * side) - strength
            for fraction, side in zip(place, image.shape, strict=False)
        )
        return erase(image, top, left, 2 * strength, 2 * strength, fill)

    return [
        lambda image, _: image,
        move,
        *map(change_values, _VALUES.values()),
        cutout,
    ]


def _matrix(size, operation, strength):
    """The matrix of a geometric operation; the identity for the others."""
    shear_x, shear_y, right, down, angle = (
        jnp.where(operation == OPERATIONS.index(name), strength, 0)
        for name in _GEOMETRY
    )
    is_shear = (shear_x != 0) | (shear_y != 0)
    shear = shear_matrix(size, *map(_degrees, (shear_x, shear_y)))
    translation = translation_matrix(right, down)
    rotation = rotation_matrix(size, angle)
    return jnp.where(is_shear, shear, jnp.where(angle != 0, rotation, translation))


def _degrees(tangent):
    return jnp.rad2deg(jnp.arctan(tangent))
