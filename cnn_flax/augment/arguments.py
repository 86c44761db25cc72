"""Argument handling shared by all operations: checks, casts and broadcasting."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from cnn_flax.layers.arguments import whole_pair

__all__ = [
    "Pair",
    "check_interpolation",
    "image_operation",
    "image_size",
    "per_channel",
    "per_image",
    "per_pixel",
    "weighed",
]

Pair = tuple[ArrayLike, ArrayLike]

_Operation = TypeVar("_Operation", bound=Callable[..., jax.Array])
_INTERPOLATIONS = ("bilinear", "nearest")


def image_operation(operation: _Operation) -> _Operation:
    """Lets an operation on float32 `[N, H, W, C]` take single images and other floats.

    bfloat16 and float16 are computed in float32 and cast back. A single image `[H, W,
    C]` is given a batch axis, which is removed from the result.

    Args:
      operation: takes images first, then any arguments; returns images.

    Returns:
      The wrapped operation. It raises `ValueError` for other ranks and `TypeError` for
      pixels that are not floats.
    """

    @functools.wraps(operation)
    def wrapped(images: jax.Array, *args: Any, **options: Any) -> jax.Array:
        images = jnp.asarray(images)
        if images.ndim not in (3, 4):
            raise ValueError(
                f"Images must be [N, H, W, C] or [H, W, C], got shape {images.shape}."
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(
                f"Pixels must be floats in [0, 1], got {images.dtype}: divide by 255."
            )
        batch = images if images.ndim == 4 else images[None]
        wide = batch.astype(jnp.promote_types(jnp.float32, images.dtype))
        result = operation(wide, *args, **options).astype(images.dtype)
        return result if images.ndim == 4 else result[0]

    return cast(_Operation, wrapped)


def per_image(
    name: str,
    value: ArrayLike,
    n: int,
    low: float | None = None,
    high: float | None = None,
) -> jax.Array:
    """Broadcasts a value to `[N]`, in float32 (float64 if the value is).

    Args:
      name: of the argument, for the error message.
      value: a number, or `[N]`.
      n: number of images.
      low: the smallest allowed value. Not checked for tracers, as inside `jax.jit`.
      high: the largest allowed value. Not checked for tracers either.

    Raises:
      ValueError: if the shape is neither `()` nor `[N]`, or a value is out of range.
    """
    if np.shape(value) not in ((), (n,)):
        raise ValueError(
            f"{name} must be a number, or one per image for {n} images; got shape "
            f"{np.shape(value)}."
        )
    if not isinstance(value, Tracer):
        found = np.asarray(value, float)
        # `>=`, not a negated `<`, which NaN would pass.
        if not (
            np.all(np.isfinite(found))
            and (low is None or np.all(found >= low))
            and (high is None or np.all(found <= high))
        ):
            limits = {
                (False, False): "finite",
                (True, False): f"at least {low}",
                (False, True): f"at most {high}",
                (True, True): f"in [{low}, {high}]",
            }[low is not None, high is not None]
            raise ValueError(f"{name} must be {limits}, got {value}.")
    array = jnp.asarray(value)
    array = array.astype(jnp.promote_types(jnp.float32, array.dtype))
    return jnp.broadcast_to(array, (n,))


def per_channel(
    name: str, value: ArrayLike | tuple[ArrayLike, ...], n: int, channels: int
) -> jax.Array:
    """Broadcasts a value per image, or per image and channel: `[N, 1]` or `[N, C]`.

    Args:
      name: of the argument, for the error message.
      value: a number, one per image `[N]`, or a tuple with one of these per channel.
      n: number of images.
      channels: number of channels of the images.

    Raises:
      ValueError: if the tuple does not have 1 or C items, or an item has a wrong shape.
    """
    values = value if isinstance(value, tuple) else (value,)
    if len(values) not in (1, channels):
        raise ValueError(
            f"{name} has {len(values)} values for images of {channels} channels."
        )
    return jnp.stack([per_image(name, item, n) for item in values], -1)


def check_interpolation(interpolation: str) -> None:
    """Raises `ValueError` unless `interpolation` is "bilinear" or "nearest"."""
    if interpolation not in _INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be one of {', '.join(_INTERPOLATIONS)}; "
            f"got {interpolation!r}."
        )


def per_pixel(values: jax.Array) -> jax.Array:
    """Reshapes `[N]` to `[N, 1, 1, 1]`, to broadcast against images."""
    return values[:, None, None, None]


def weighed(weight: jax.Array, values: jax.Array) -> jax.Array:
    """`weight * values`; a value of weight 0 counts as 0 even if it is not finite."""
    return weight * jnp.where(weight == 0, 0, values)


def image_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (height, width); a single number means a square.

    Raises:
      ValueError: if `size` is not one or two positive integers.
    """
    try:
        return whole_pair("size", size)
    except ValueError:
        raise ValueError(
            "size must be a positive whole number of pixels, or (height, width); "
            f"got {size}."
        ) from None
