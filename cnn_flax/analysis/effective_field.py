"""The effective receptive field: how much each pixel matters to a position.

Luo, Li, Urtasun and Zemel 2016, "Understanding the effective receptive field in deep
convolutional neural networks", https://arxiv.org/abs/1701.04128.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_flax.analysis.named_arrays import (
    Model,
    ReceptiveFieldError,
    checked_position,
    find_array,
    named_arrays,
    position_axes,
    trace_arrays,
)

__all__ = ["EffectiveReceptiveField", "effective_receptive_field"]

# Section 3.1: a pixel counts if it has more than this fraction of the largest gradient.
_THRESHOLD = 1 - 0.9545


@dataclasses.dataclass(frozen=True, eq=False)
class EffectiveReceptiveField:
    """How much each pixel of an image matters to one position of a map.

    Attributes:
      name: of the map in its model.
      position: (vertical, horizontal) of the position in the map.
      weights: float `[H, W]`, summing to 1.
      size: square root of the number of pixels with more than 4.55 % of the largest
        weight, the paper's measure.
      centre: weighted mean pixel, (vertical, horizontal).
      deviation: weighted standard deviation about it, (vertical, horizontal). A normal
        distribution has 95.45 % within two of these.
    """

    name: str
    position: tuple[int, int]
    weights: np.ndarray
    size: float
    centre: tuple[float, float]
    deviation: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"{self.name}: effective {self.size:.1f} px, "
            f"deviation {self.deviation[0]:.1f} x {self.deviation[1]:.1f} px"
        )


def effective_receptive_field(
    model: Model,
    variables: Any,
    images: jax.Array,
    at: str | None = None,
    *,
    position: Sequence[int] | None = None,
    **options: Any,
) -> EffectiveReceptiveField:
    """Measures how much each pixel matters to one position of a map, by its gradient.

    A pixel's weight is the absolute gradient of the sum over the position's channels,
    summed over the pixel's channels and averaged over the images. A single image gives
    a noisy field; the paper averages over many, which may be random.

    Args:
      model: as for `receptive_field`.
      variables: of the model; ignored for a function.
      images: float `[N, H, W, C]`, as the model takes them.
      at: name of the map, as for `receptive_field`; None: the last one.
      position: (vertical, horizontal) in the map; None: the middle.
      **options: further arguments of the model's call.

    Raises:
      ReceptiveFieldError: if there is no map `at`, or all gradients are 0.
      ValueError: if `position` is outside the map, or `images` are not a batch.
      TypeError: if `images` are not floats.
    """
    if np.ndim(images) != 4:
        raise ValueError(
            f"images must be [N, H, W, C], got shape {np.shape(images)}; pass a single "
            "image as images[None]."
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be floats, got {images.dtype}.")
    traced = trace_arrays(
        model,
        images.shape[1:3],
        ignore_global=True,
        channels=images.shape[3],
        options=options,
    )
    name, seen = find_array(traced, at)
    axes, shape = position_axes(name, seen), traced[name].shape
    row, column = checked_position(position, [shape[axis] for axis in axes])
    arrays = named_arrays(model, options)
    order = [*axes, *(axis for axis in range(len(shape)) if axis not in axes)]

    @jax.jit
    def gradient(variables, images):
        def value(images):
            array = arrays(variables, images)[name]
            return array.transpose(order)[row, column].sum()

        return abs(jax.grad(value)(images)).sum((0, 3))

    weights = np.asarray(gradient(variables, images), np.float64)
    if not 0 < weights.sum() < math.inf:
        raise ReceptiveFieldError(
            f"The gradients of {name!r} at {(row, column)} add up to {weights.sum()}: "
            "its effective field is undefined."
        )
    return _measured(name, (row, column), weights / weights.sum())


def _measured(name, position, weights) -> EffectiveReceptiveField:
    """Computes the measures of a field."""
    size = math.sqrt(np.count_nonzero(weights > _THRESHOLD * weights.max()))
    row, height = _moments(weights, 0)
    column, width = _moments(weights, 1)
    return EffectiveReceptiveField(
        name, position, weights, size, (row, column), (height, width)
    )


def _moments(weights, axis) -> tuple[float, float]:
    """Mean and standard deviation along an axis."""
    weights = weights.sum(axis=1 - axis)
    pixels = np.arange(len(weights))
    mean = float(weights @ pixels)
    return mean, math.sqrt(weights @ (pixels - mean) ** 2)
