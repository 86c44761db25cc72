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

from collections.abc import Callable, Iterable, Mapping

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
from cnn_flax.augment.random import Draw, apply_chosen, draw_per_image

__all__ = [
    "OPERATIONS",
    "Space",
    "apply_operations",
    "bits",
    "draw_operations",
    "ramp",
    "strengths",
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

Space = Mapping[str, tuple[np.ndarray, bool]]
"""By operation: strengths, one a magnitude, and whether their sign is drawn."""


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
    return apply_chosen(images, branches, chosen, (operation, strength, place))


def draw_operations(
    key: jax.Array, n: int, space: Space, count: int, magnitude: int | None = None
) -> Draw:
    """Operations with equal probability: `operation` and `strength`, `[n, count]`.

    Where the space has `cutout`, `place` too, `[n, count, 2]`.

    Args:
      key: one key, or one an image `[n]`.
      n: how many images.
      space: what is drawn from.
      count: operations an image.
      magnitude: place of the strength in the space's; None draws it too. The sign is
        drawn where the space says so.
    """
    table, signed, numbers = _tables(space)

    def draw(key):
        key_operation, key_magnitude, key_sign, key_place = jax.random.split(key, 4)
        row = jax.random.randint(key_operation, (), 0, len(numbers))
        if magnitude is None:
            column = jax.random.randint(key_magnitude, (), 0, table.shape[1])
        else:
            column = magnitude
        is_negative = jax.random.bernoulli(key_sign) & jnp.asarray(signed)[row]
        strength = jnp.asarray(table)[row, column]
        strength = jnp.where(is_negative, -strength, strength)
        place = {"place": jax.random.uniform(key_place, (2,))}
        return {
            "operation": jnp.asarray(numbers)[row],
            "strength": strength,
            **(place if "cutout" in space else {}),
        }

    def draw_all(key):
        return jax.vmap(draw)(jax.random.split(key, count))

    return draw_per_image(draw_all, key, n)


def ramp(end: float, bins: int) -> np.ndarray:
    """`bins` numbers from 0 to `end`, to the last bit of float32 torch's `linspace`.

    Pixels are cut to whole ones: of 31 from 0 to 32, number 15 is just below 16 there.
    """
    if bins < 2:
        raise ValueError(f"num_magnitude_bins must be at least 2, got {bins}.")
    last = np.float32(end)
    step = np.float64(last / np.float32(bins - 1))
    places = np.arange(bins)
    # Up to the middle from the start, then from the end.
    numbers = np.where(places < bins // 2, step * places, last - step * places[::-1])
    return numbers.astype(np.float32)


def strengths(
    names: Iterable[str],
    bins: int,
    *,
    shear: float,
    move: tuple[float, float],
    degrees: float,
    factor: float,
    keep: tuple[int, int],
) -> Space:
    """A space as torchvision's policies have them, each strength up to an end.

    Args:
      names: of the operations, in the order that they are numbered in; those of which
        nothing is said here have no strength.
      bins: how many magnitudes there are.
      shear: tangent of the strongest shear.
      move: pixels right and down of the strongest translations.
      degrees: of the strongest rotation.
      factor: by which brightness and the like differ from 1 at most.
      keep: bits that `posterize` keeps at first, and how many fewer at the end.

    Raises:
      ValueError: if there are not two magnitudes.
    """
    right, down = (np.trunc(ramp(pixels, bins)) for pixels in move)
    known: Space = {
        **dict.fromkeys(("shear_x", "shear_y"), (ramp(shear, bins), True)),
        "translate_x": (right, True),
        "translate_y": (down, True),
        "rotate": (ramp(degrees, bins), True),
        **dict.fromkeys(
            ("brightness", "color", "contrast", "sharpness"),
            (ramp(factor, bins), True),
        ),
        "posterize": (bits(*keep, bins), False),
        "solarize": (ramp(255.0, bins)[::-1] / 255, False),
    }
    return {name: known.get(name, (np.zeros(bins), False)) for name in names}


def bits(most: int, fewer: int, bins: int) -> np.ndarray:
    """Bits for `posterize`: from `most` down to `fewer` less."""
    return most - np.round(np.arange(bins) / ((bins - 1) / fewer))


def _tables(space: Space) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Strengths `[M, B]`, whether they are signed `[M]`, places in `OPERATIONS`."""
    strengths, signed = zip(*space.values(), strict=True)
    return (
        np.stack(strengths).astype(np.float32),
        np.array(signed),
        np.array([OPERATIONS.index(name) for name in space]),
    )


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
