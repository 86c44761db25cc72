"""Augmentation spaces of the policies: strengths by operation, and draws from them."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from cnn_flax.augment.policy_table import OPERATIONS
from cnn_flax.augment.prng import Draw, draw_per_image

__all__ = ["Space", "bits", "draw_operations", "ramp", "strengths"]

Space = Mapping[str, tuple[np.ndarray, bool]]
"""By operation: strengths, one a magnitude, and whether their sign is drawn."""


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
