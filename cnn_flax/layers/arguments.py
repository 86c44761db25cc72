"""Checks of what networks and layers are given."""

import contextlib
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype
from jax import core

__all__ = [
    "as_images",
    "check_floats",
    "check_least_size",
    "check_maps",
    "check_rate",
    "finite_number",
    "is_sequence",
    "whole_number",
    "whole_numbers",
    "whole_pair",
]

_FEW_CHANNELS = 4  # The most that a picture has: red, green, blue, transparency.


def as_images(images: jax.Array, dtype: Dtype, min_size: int = 1) -> jax.Array:
    """Checks that an array is a batch of images, and casts it.

    Args:
      images: float `[N, H, W, C]`.
      dtype: what they are cast to.
      min_size: smallest height and width that the network can take, in pixels.

    Raises:
      ValueError: if `images` is not of rank 4, has no pixels, has its channels first,
        or is smaller than `min_size`.
      TypeError: if `images` are not floats.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(
            f"Images are [N, H, W, C], got shape {images.shape}"
            + ("; a single image is images[None]." if images.ndim == 3 else ".")
        )
    if _has_channels_first(images.shape):
        raise ValueError(
            f"Images are [N, H, W, C] (NHWC), got shape {images.shape}, which looks "
            "like NCHW; jnp.moveaxis(images, 1, -1) moves the channels."
        )
    check_least_size("Images", images.shape[1:3], min_size)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"Images are floats, normalised as the weights expect; got {images.dtype}."
        )
    return images.astype(dtype)


def check_least_size(what: str, sides: Sequence[int], least: int) -> None:
    """Checks that height and width are not too small.

    Args:
      what: they are of, for the error message.
      sides: height and width, in pixels; symbolic ones under `jax.export`.
      least: the smallest allowed value.

    Raises:
      ValueError: if they are, or might be.
    """
    # JAX refuses to compare symbols, but simplifies what it can prove.
    if all(core.max_dim(side, least) == side for side in sides):
        return
    message = (
        f"{what} must be at least {least} x {least} px, got {sides[0]} x {sides[1]}"
    )
    if not all(isinstance(side, int) for side in sides):
        message += (
            f"; give jax.export.symbolic_shape constraints, such as 'h >= {least}'"
        )
    raise ValueError(f"{message}.")


def _has_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether a map is as flat as channels are few, and its channels are a side's."""
    known = [side for side in shape[1:] if isinstance(side, int)]
    return len(known) == 3 and shape[1] <= _FEW_CHANNELS < min(shape[2:])


def check_rate(name: str, rate: float) -> None:
    """Checks that a probability of dropping is in [0, 1).

    Raises:
      ValueError: if it is not; names the argument.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"{name} must be in [0, 1), got {rate}.")


def check_maps(x: jax.Array) -> None:
    """Checks that an operator is given maps.

    Raises:
      ValueError: if `x` is not of rank 4.
      TypeError: if `x` is not of floats.
    """
    if x.ndim != 4:
        raise ValueError(
            f"Maps are [N, H, W, C], got shape {x.shape}"
            + ("; a single one is x[None]." if x.ndim == 3 else ".")
        )
    check_floats(x)


def check_floats(x: jax.Array) -> None:
    """Checks that an array is of floats.

    Raises:
      TypeError: if it is not.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must have a float dtype, got {x.dtype}.")


def whole_number(name: str, value: Any, least: int | None = 1) -> int:
    """Checks that a size or a count is a whole number, NumPy's too.

    Args:
      name: of the argument, for the error message.
      value: what was given.
      least: the smallest allowed value; None: any.

    Raises:
      ValueError: if it is no whole number, such as True or 2.0, or below `least`.
    """
    number = None
    if not isinstance(value, bool | np.bool_):
        with contextlib.suppress(TypeError):
            number = operator.index(value)
    if number is None:
        raise ValueError(f"{name} must be a whole number, got {value!r}.")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}.")
    return number


def whole_numbers(name: str, value: Any, least: int | None = 1) -> tuple[int, ...]:
    """Checks a sequence of whole numbers, such as a tuple, list or NumPy's array.

    Raises:
      ValueError: if it is none; arguments are those of `whole_number`.
    """
    if not is_sequence(value):
        raise ValueError(f"{name} must be a sequence of whole numbers, got {value!r}.")
    return tuple(
        whole_number(f"{name}[{i}]", item, least) for i, item in enumerate(value)
    )


def whole_pair(name: str, value: Any, least: int | None = 1) -> tuple[int, int]:
    """Checks one whole number, which stands for two, or (vertical, horizontal).

    Raises:
      ValueError: if it is neither; arguments are those of `whole_number`.
    """
    if not is_sequence(value):
        number = whole_number(name, value, least)
        return number, number
    if len(value) != 2:
        raise ValueError(
            f"{name} must be a whole number or (vertical, horizontal), got {value!r}."
        )
    vertical, horizontal = whole_numbers(name, value, least)
    return vertical, horizontal


def finite_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf
) -> Any:
    """Checks that a value is a number, NumPy's too; a tracer is returned as it is.

    Args:
      name: of the argument, for the error message.
      value: what was given.
      low: the smallest allowed value.
      high: the largest allowed value.

    Raises:
      TypeError: if it is no number, such as True or "1".
      ValueError: if it is NaN, infinite or out of range.
    """
    if isinstance(value, core.Tracer):
        return value
    if isinstance(value, bool | np.bool_ | str) or value is None or np.ndim(value):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        limits = "finite" if low == -math.inf else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {limits}, got {value!r}.")
    return number


def is_sequence(value: Any) -> bool:
    """Whether a value holds several numbers: a sequence or an array, but no string."""
    if isinstance(value, np.ndarray | jax.Array):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str)
