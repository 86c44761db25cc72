"""Per-image PRNG keys and draws."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cnn_flax.layers.arguments import finite_number, is_sequence

__all__ = [
    "Draw",
    "Range",
    "check_probability",
    "bernoulli",
    "uniform",
    "draw_per_image",
    "image_keys",
    "is_range",
    "keys_per_image",
    "symmetric_range",
]

Range = float | tuple[float, float]
Draw = dict[str, Any]  # Arrays `[N, ...]`, and pairs of them.


def keys_per_image(key: jax.Array, images: jax.Array | int) -> jax.Array:
    """Returns one key per image, `[N]`, so that no draw depends on another image.

    Args:
      key: one key, folded with each image's index in the batch; or one per image, which
        are returned unchanged.
      images: `[N, ...]`, or N.

    Raises:
      ValueError: if the number of keys is neither 1 nor N.
    """
    n = images if isinstance(images, int) else len(images)
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))
    if key.shape != (n,):
        raise ValueError(f"Got keys of shape {key.shape} for {n} images.")
    return key


def image_keys(key: jax.Array, images: jax.Array) -> tuple[jax.Array, int]:
    """Returns the keys of images `[N, H, W, C]` or `[H, W, C]`, and N.

    A single image uses its key directly, so that `jax.vmap` over keys and images equals
    the operation on the batch.
    """
    if images.ndim == 3:
        return keys_per_image(key[None] if key.ndim == 0 else key, 1), 1
    return keys_per_image(key, images), len(images)


def draw_per_image(draw: Callable[[jax.Array], Draw], key: jax.Array, n: int) -> Draw:
    """Maps `draw` over the images' keys."""
    return jax.vmap(draw)(keys_per_image(key, n))


def uniform(key: jax.Array, bounds: tuple[float, float]) -> jax.Array:
    """Uniform in [low, high)."""
    return jax.random.uniform(key, minval=bounds[0], maxval=bounds[1])


def bernoulli(key: jax.Array, p: float) -> jax.Array:
    """True with probability `p`."""
    return jax.random.bernoulli(key, float(p))


def check_probability(p: float) -> None:
    """Raises `ValueError` if `p` is outside [0, 1], `TypeError` if it is no number."""
    finite_number("p", p, 0, 1)


def is_range(value: Any) -> bool:
    """Whether a value is a pair (low, high)."""
    return is_sequence(value) and len(value) == 2 and bool(value[0] <= value[1])


def symmetric_range(
    name: str,
    value: Range,
    center: float = 0.0,
    low: float = -float("inf"),
    high: float = float("inf"),
) -> tuple[float, float]:
    """Returns (lowest, highest); a single number means `center` +- that number.

    Args:
      name: of the argument, for the error message.
      value: half the width of the range, or (lowest, highest).
      center: of the range if `value` is a number.
      low: the smallest allowed value; the range of a single number is clipped to it.
      high: the largest allowed value.

    Raises:
      ValueError: if `value` is not a range, or not within [low, high].
      TypeError: if it is neither a number nor a range.
    """
    bounds: Any = value
    if not is_sequence(value):
        half = finite_number(name, value)
        bounds = (max(center - half, low), center + half)
    if len(bounds) != 2 or not low <= bounds[0] <= bounds[1] <= high:
        limits = f" in [{low}, {high}]" if high < float("inf") or low > -1e9 else ""
        raise ValueError(
            f"{name} must be a number of at least 0 or a range (low, high){limits}, "
            f"got {value}."
        )
    return float(bounds[0]), float(bounds[1])
