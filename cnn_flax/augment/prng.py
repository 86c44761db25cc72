"""Keys and numbers of the random operations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = [
    "Draw",
    "Range",
    "check_probability",
    "coins",
    "draw_numbers",
    "draw_per_image",
    "image_keys",
    "keys_per_image",
    "symmetric",
]

Range = float | tuple[float, float]
Draw = dict[str, Any]  # Arrays `[N, ...]`, and pairs of such.


def keys_per_image(key: jax.Array, images: jax.Array | int) -> jax.Array:
    """One key an image, `[N]`, so that its draw depends on no other image.

    Args:
      key: one key, from which each image's follows by its position in the batch, or
        one an image already, as they are.
      images: `[N, ...]`, or N.

    Raises:
      ValueError: if there are keys for another number of images.
    """
    n = images if isinstance(images, int) else len(images)
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))
    if key.shape != (n,):
        raise ValueError(f"There are keys of shape {key.shape} for {n} images.")
    return key


def image_keys(key: jax.Array, images: jax.Array) -> tuple[jax.Array, int]:
    """The keys of images `[N, H, W, C]` or `[H, W, C]`, and how many there are.

    One image takes one key as its own, so that `jax.vmap` over keys and images is the
    operation on the batch of them.
    """
    if images.ndim == 3:
        return keys_per_image(key[None] if key.ndim == 0 else key, 1), 1
    return keys_per_image(key, images), len(images)


def draw_per_image(draw: Callable[[jax.Array], Draw], key: jax.Array, n: int) -> Draw:
    """What `draw` makes of each image's key, under `jax.vmap`."""
    return jax.vmap(draw)(keys_per_image(key, n))


def draw_numbers(key: jax.Array, bounds: tuple[float, float]) -> jax.Array:
    """A number, evenly between two."""
    return jax.random.uniform(key, minval=bounds[0], maxval=bounds[1])


def coins(key: jax.Array, p: float) -> jax.Array:
    """Whether, with probability `p`."""
    return jax.random.bernoulli(key, p)


def check_probability(p: float) -> None:
    """Raises `ValueError` if `p` is outside [0, 1]."""
    if not 0 <= p <= 1:
        raise ValueError(f"p must be in [0, 1], got {p}.")


def symmetric(
    name: str,
    value: Range,
    center: float = 0.0,
    low: float = -float("inf"),
    high: float = float("inf"),
) -> tuple[float, float]:
    """The range `value`; of one number, as much below as above `center`.

    Args:
      name: what the numbers are, for the message.
      value: half the width, or (lowest, highest).
      center: of the range that one number gives.
      low: the least that is allowed, where the range of one number ends.
      high: the largest that is allowed.

    Raises:
      ValueError: if it is no range, or not within `low` and `high`.
    """
    if isinstance(value, int | float):
        bounds = (max(center - value, low), center + value)
    else:
        bounds = tuple(value)
    if len(bounds) != 2 or not low <= bounds[0] <= bounds[1] <= high:
        limits = f" in [{low}, {high}]" if high < float("inf") or low > -1e9 else ""
        raise ValueError(
            f"{name} is a number above 0 or a range (low, high){limits}, got {value}."
        )
    return float(bounds[0]), float(bounds[1])
