"""The receptive field of any array in a model: which pixels of the image it can see.

It is found from the traced program, so that it holds for every model, whatever its
branches; no weights are needed and nothing is compiled. Fields are those of Araujo,
Norris and Sim 2019, "Computing receptive fields of convolutional neural networks",
https://distill.pub/2019/computing-receptive-fields: size, stride and padding.
"""

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np

from cnn_flax.analysis.named_arrays import (
    Model,
    ReceptiveFieldError,
    find_array,
    trace_arrays,
)
from cnn_flax.analysis.pixel_span import PixelSpan
from cnn_flax.analysis.propagation import Seen

__all__ = [
    "ReceptiveField",
    "field_of",
    "pixels",
    "receptive_field",
    "receptive_fields",
]

Pair = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """Which pixels a map's positions see, each attribute as (vertical, horizontal).

    Position p sees the pixels `p * stride - padding` to `p * stride - padding + size -
    1`, of which some may lie outside the image.

    Attributes:
      name: of the map in its model.
      size: pixels that a position sees; `math.inf` behind a global pooling. Where
        positions differ, as behind an upsampling, that of the largest.
      stride: pixels from one position's field to the next one's; where an array has no
        positions left, that of the map which it was made of.
      padding: pixels that the first position's field lies outside the image.
      data_dependent: whether a deformable convolution lies between: it looks where the
        image tells it, and the numbers are those that it has undeformed.
    """

    name: str
    size: Pair
    stride: Pair
    padding: Pair
    data_dependent: bool = False

    def __str__(self) -> str:
        if self.size == (math.inf, math.inf):
            size = "infinite (it sees the whole image, as by global pooling)"
        else:
            size = f"{pixels(self.size)} px"
        if self.data_dependent:
            size = f"data-dependent (deformable); undeformed {size}"
        text = f"{self.name}: {size}, stride {pixels(self.stride)}"
        if math.inf in self.padding:
            return text
        return f"{text}, padding {pixels(self.padding)}"


def pixels(pair: Pair) -> str:
    """A (vertical, horizontal) pair in words: "43", "43 x 51" or "infinite"."""
    vertical, horizontal = ("infinite" if v == math.inf else f"{v:g}" for v in pair)
    return vertical if vertical == horizontal else f"{vertical} x {horizontal}"


def receptive_field(
    model: Model,
    image_size: int | tuple[int, int],
    at: str | None = None,
    *,
    ignore_global: bool = False,
    channels: int = 3,
    **options: Any,
) -> ReceptiveField:
    """Which pixels a map of a model sees.

    Where a global pooling enters, as in squeeze and excitation or in the head, that is
    the whole image, whatever its size: the field is infinite. A pooling window or
    kernel that happens to cover a map is a window like others.

    Args:
      model: a `flax.linen.Module` that takes images `[N, H, W, C]`, ours or another; or
        a function of the images that returns an array or a dictionary of arrays.
      image_size: of the images, in pixels: one number or (height, width). "SAME"
        padding depends on it.
      at: which array. In a module, a value that it sows ("stage3") or the output of a
        module inside ("stage3_block2/conv1"), "output" being its own; in a function, a
        key of what it returns. None: the last of these that is still a map.
      ignore_global: whether gates from global poolings are left out, so that a net with
        squeeze and excitation has the field of the net without it.
      channels: of the images.
      **options: further arguments of the model's call, such as `train=False`.

    Returns:
      The field; it prints as a sentence.

    Raises:
      ReceptiveFieldError: if there is no array `at` (names the nearest ones), if it
        does not depend on the image, or if an operation before it has no rule.
      TypeError: if `model` is neither of the two.
      ValueError: if `image_size` is not one.
    """
    arrays = trace_arrays(
        model,
        image_size,
        ignore_global=ignore_global,
        channels=channels,
        options=options,
    )
    return field_of(*find_array(arrays, at))


def receptive_fields(
    model: Model,
    image_size: int | tuple[int, int],
    *,
    ignore_global: bool = False,
    channels: int = 3,
    **options: Any,
) -> dict[str, ReceptiveField]:
    """The fields of all arrays in a model that have one, in the program's order.

    Arguments are those of `receptive_field`, and the names those that it takes.
    """
    arrays = trace_arrays(
        model,
        image_size,
        ignore_global=ignore_global,
        channels=channels,
        options=options,
    )
    return {
        name: field_of(name, array.value)
        for name, array in arrays.items()
        if isinstance(array.value, Seen)
    }


def field_of(name: str, value: Seen) -> ReceptiveField:
    """The field of an array of that name."""
    vertical, horizontal = value.spans
    size, stride, padding = zip(
        _extent(name, vertical), _extent(name, horizontal), strict=True
    )
    if any(a != 0 != b for a, b in zip(vertical.steps, horizontal.steps, strict=True)):
        # One axis walks over both the image's: a flattened map.
        stride = _number(vertical.scale), _number(horizontal.scale)
    return ReceptiveField(name, size, stride, padding, vertical.deformed)


def _extent(name: str, span: PixelSpan) -> tuple[float, float, float]:
    """Size, stride and padding along one axis of the image."""
    positions = [axis for axis, step in enumerate(span.steps) if step]
    if not positions:
        positions = [axis for axis, step in enumerate(span.steps) if step is None]
    others = tuple(a for a in range(len(span.steps)) if a not in positions)
    low, high = span.low.min(axis=others), span.high.max(axis=others)
    size = np.max(high - low) + 1
    if size < 1:
        raise ReceptiveFieldError(f"{name!r} sees nothing but padding.")
    step = min((abs(s) for s in span.steps if s), default=span.scale)
    return _number(size), _number(step), _number(-low.flat[0])


def _number(value: float | Fraction) -> float:
    """An int where it is one."""
    value = float(value)
    return int(value) if value.is_integer() else value
