"""What every operation does with its images and its numbers before it begins."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

__all__ = [
    "Pair",
    "check_interpolation",
    "image_operation",
    "image_size",
    "per_channel",
    "per_image",
    "per_pixel",
]

Pair = tuple[ArrayLike, ArrayLike]

_Operation = TypeVar("_Operation", bound=Callable[..., jax.Array])
_INTERPOLATIONS = ("bilinear", "nearest")


def image_operation(operation: _Operation) -> _Operation:
    """Lets an operation on float32 `[N, H, W, C]` take one image, and other floats.

    bfloat16 and float16 are computed in float32 and come back as they were; one image
    `[H, W, C]` gets its batch axis for the time.

    Args:
      operation: takes images, then anything; returns images.

    Returns:
      The operation, which raises `ValueError` for other ranks and `TypeError` for
      pixels that are not floats.
    """

    @functools.wraps(operation)
    def wrapped(images: jax.Array, *args: Any, **options: Any) -> jax.Array:
        images = jnp.asarray(images)
        if images.ndim not in (3, 4):
            raise ValueError(
                f"Images are [N, H, W, C] or [H, W, C], got the shape {images.shape}."
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(
                f"Pixels are floats in [0, 1], got {images.dtype}: divide by 255."
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
    """One number an image, in float32 (float64 where the value is): `[N]`.

    Args:
      name: what the number is, for the message.
      value: a number, or `[N]`.
      n: how many images there are.
      low: the least that is allowed. Values inside `jax.jit` cannot be looked at.
      high: the largest that is allowed.

    Raises:
      ValueError: if there is another number of them, or one is outside the range.
    """
    if np.shape(value) not in ((), (n,)):
        raise ValueError(
            f"{name} is a number, or one for each of the {n} images; got the shape "
            f"{np.shape(value)}."
        )
    if not isinstance(value, Tracer):
        found = np.asarray(value, float)
        # Not `<`: it lets NaN pass.
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
    """Numbers of images, or of their channels: `[N, 1]` or `[N, C]`.

    Args:
      name: what the numbers are, for the message.
      value: a number, one an image `[N]`, or a tuple of such, one a channel.
      n: how many images there are.
      channels: of the images.

    Raises:
      ValueError: if there is another number of them.
    """
    values = value if isinstance(value, tuple) else (value,)
    if len(values) not in (1, channels):
        raise ValueError(
            f"{name} has {len(values)} values for images of {channels} channels."
        )
    return jnp.stack([per_image(name, number, n) for number in values], -1)


def check_interpolation(interpolation: str) -> None:
    """Raises `ValueError` for what is neither "bilinear" nor "nearest"."""
    if interpolation not in _INTERPOLATIONS:
        raise ValueError(
            f"interpolation is one of {', '.join(_INTERPOLATIONS)}; "
            f"got {interpolation!r}."
        )


def per_pixel(values: jax.Array) -> jax.Array:
    """`[N]` as `[N, 1, 1, 1]`, beside images."""
    return values[:, None, None, None]


def image_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width, of a square where there is one number.

    Raises:
      ValueError: if they are not two whole numbers above 0.
    """
    sides = size if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or not all(
        isinstance(side, int | np.integer) and side > 0 for side in sides
    ):
        raise ValueError(
            f"size is a whole number of pixels above 0, or (height, width); got {size}."
        )
    return int(sides[0]), int(sides[1])
