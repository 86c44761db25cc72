"""The operations that policies draw from, and how an image gets only those it drew.

Names and strengths are torchvision's (`transforms.autoaugment`):

| operation | strength | range |
| --- | --- | --- |
| `identity`, `autocontrast`, `equalize`, `invert` | none | |
| `shear_x`, `shear_y` | tangent of the shear | any |
| `translate_x`, `translate_y` | pixels right, down | any |
| `rotate` | degrees counter-clockwise | any |
| `brightness`, `color`, `contrast`, `sharpness` | factor less 1 | -1 on |
| `posterize` | bits that are kept | 0 to 8 |
| `solarize` | values from this one on are inverted | 0 to 1 |

Two more are of EfficientNet's RandAugment:

| operation | strength | range |
| --- | --- | --- |
| `solarize_add` | what is added to values under 128 / 255 | any |
| `cutout` | half the side of a square of the fill, in pixels | 0 on |
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
"""What is drawn, as numbers from 0."""

# One branch for none, one for all of geometry, one for each of the others.
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
    """Changes each image by its operations, one after the other.

    On a CPU the images are worked off one by one, each by its operation alone; on other
    devices all at once: one gather for whatever geometry was drawn, then each colour
    operation where it was drawn. On a mesh of CPU devices call it inside
    `jax.shard_map`, or each device works off the whole batch.

    Args:
      images: float `[N, H, W, C]` in [0, 1], or `[H, W, C]`.
      operation: L operations an image, the first to be applied first: places in
        `OPERATIONS`, int `[N, L]`.
      strength: of the operations, float `[N, L]`.
      place: where the centre of a `cutout` is, as shares of height and width, float
        `[N, L, 2]` in [0, 1); None is the middle.
      interpolation: "bilinear" or "nearest".
      fill: what lies outside the image: a number, or one a channel.

    Returns:
      The shape of `images`.

    Raises:
      ValueError: if the operations are not of so many images.
    """
    if operation.ndim != 2 or operation.shape[0] != len(images):
        raise ValueError(
            f"There are operations of shape {operation.shape} for {len(images)} "
            f"images; it must be ({len(images)}, L)."
        )
    if place is None:
        place = jnp.full((*operation.shape, 2), 0.5)
    branches = _branches(interpolation, fill)
    chosen = jnp.asarray(_BRANCH)[operation]
    return switch_per_image(images, branches, chosen, (operation, strength, place))


def _branches(interpolation, fill):
    """Functions of one image `[H, W, C]`, and of its operation, strength and place."""

    def move(image, drawn):
        matrix = _matrix(image.shape[:2], *drawn[:2])
        return warp(image, matrix, interpolation=interpolation, fill=fill)

    def change_values(change):
        return lambda image, drawn: change(image, drawn[1])

    def cutout(image, drawn):
        _, strength, place = drawn
        top, left = (
            jnp.floor(share * side) - strength
            for share, side in zip(place, image.shape, strict=False)
        )
        return erase(image, top, left, 2 * strength, 2 * strength, fill)

    return [
        lambda image, _: image,
        move,
        *map(change_values, _VALUES.values()),
        cutout,
    ]


def _matrix(size, operation, strength):
    """The move of a geometric operation: the identity for other ones."""
    shear_x, shear_y, right, down, degrees = (
        jnp.where(operation == OPERATIONS.index(name), strength, 0)
        for name in _GEOMETRY
    )
    is_shear = (shear_x != 0) | (shear_y != 0)
    shear = shear_matrix(size, *map(_degrees, (shear_x, shear_y)))
    move = translation_matrix(right, down)
    turn = rotation_matrix(size, degrees)
    return jnp.where(is_shear, shear, jnp.where(degrees != 0, turn, move))


def _degrees(tangent):
    return jnp.rad2deg(jnp.arctan(tangent))
