"""Augmentation spaces of the policies: strengths by operation, and draws from them."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from cnn_flax.augment.policy_table import OPERATIONS
from cnn_flax.augment.prng import Draw, draw_per_image
from cnn_flax.layers.arguments import whole_number

__all__ = ["Space", "bits", "draw_operations", "ramp", "strengths"]

Space = Mapping[str, tuple[np.ndarray, bool]]
"""By operation: its strength at each magnitude, and whether a sign is drawn."""


def draw_operations(
    key: jax.Array, n: int, space: Space, count: int, magnitude: int | None = None
) -> Draw:
    """Draws operations uniformly: `operation` and `strength`, `[n, count]`.

    Also draws `place`, `[n, count, 2]`, if the space has `cutout`.

    Args:
      key: one key, or one per image `[n]`.
      n: number of images.
      space: the operations to draw from.
      count: operations per image.
      magnitude: index of the strength; None draws it too. The sign is drawn for
        operations whose space says so.
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
    """`bins` values from 0 to `end`, bit-identical to torch's float32 `linspace`.

    Pixels are truncated to integers, so the last bit matters: of 31 values from 0 to
    32, value 15 is just below 16.
    """
    bins = whole_number("num_magnitude_bins", bins, least=2)
    last = np.float32(end)
    step = np.float64(last / np.float32(bins - 1))
    index = np.arange(bins)
    # The first half counts up from the start, the second down from the end.
    values = np.where(index < bins // 2, step * index, last - step * index[::-1])
    return values.astype(np.float32)


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
    """Builds a space in the form of torchvision's policies.

    Args:
      names: of the operations, in order. Operations without an argument here have no
        strength.
      bins: number of magnitudes.
      shear: tangent of the strongest shear.
      move: pixels right and down of the strongest translations.
      degrees: of the strongest rotation.
      factor: largest deviation from 1 of the factors of `brightness`, `color`,
        `contrast` and `sharpness`.
      keep: bits that `posterize` keeps at the weakest magnitude, and how many fewer at
        the strongest.

    Raises:
      ValueError: if `bins` is below 2.
    """
    right, down = (np.trunc(ramp(pixels, bins)) for pixels in move)
    space: Space = {
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
    return {name: space.get(name, (np.zeros(bins), False)) for name in names}


def bits(most: int, fewer: int, bins: int) -> np.ndarray:
    """Bits for `posterize`, from `most` down to `most - fewer`."""
    return most - np.round(np.arange(bins) / ((bins - 1) / fewer))


def _tables(space: Space) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Strengths `[M, B]`, whether a sign is drawn `[M]`, indices into `OPERATIONS`."""
    strengths, signed = zip(*space.values(), strict=True)
    return (
        np.stack(strengths).astype(np.float32),
        np.array(signed),
        np.array([OPERATIONS.index(name) for name in space]),
    )
