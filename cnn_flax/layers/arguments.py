"""Checks of what networks and layers are given."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

__all__ = ["as_images", "check_rate", "is_sequence", "whole_number"]

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
    sides = images.shape[1:3]
    if any(jax.core.max_dim(side, min_size) != side for side in sides):
        is_known = all(isinstance(side, int) for side in sides)
        raise ValueError(
            f"Images must be at least {min_size} x {min_size} px, got "
            f"{sides[0]} x {sides[1]}"
            + (
                "."
                if is_known
                else "; jax.export.symbolic_shape takes constraints, such as "
                f"'{sides[0]} >= {min_size}'."
            )
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"Images are floats, normalised as the weights expect; got {images.dtype}."
        )
    return images.astype(dtype)


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
        try:
            number = operator.index(value)
        except TypeError:
            pass
    if number is None or (least is not None and number < least):
        limit = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} must be a whole number{limit}, got {value!r}.")
    return number


def is_sequence(value: Any) -> bool:
    """Whether a value holds several numbers: a sequence or an array, but no string."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str)
