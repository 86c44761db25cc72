"""The receptive field of any array in a model: which pixels of the image it can see.

It is computed from the traced program, so that it holds for every model, whatever its
branches; no weights are needed and nothing is compiled. Fields have size, stride and
padding as in Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional
neural networks", https://distill.pub/2019/computing-receptive-fields.
"""

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np

from cnn_flax.analysis.named_arrays import (
    Array,
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
    "fields_of",
    "pixels",
    "receptive_field",
    "receptive_fields",
]

Pair = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """Which pixels the positions of a map see, as (vertical, horizontal) pairs.

    Position p sees the pixels `p * stride - padding` to `p * stride - padding + size -
    1`, some of which may lie outside the image.

    Attributes:
      name: of the map in its model.
      size: pixels that a position sees; `math.inf` after a global pooling. If positions
        differ, as after upsampling, the largest.
      stride: pixels between the fields of neighbouring positions; for an array without
        positions, that of the map it was computed from.
      padding: pixels by which the first position's field extends beyond the image.
      data_dependent: whether a deformable convolution is on the path. It samples where
        its input says; size, stride and padding are the undeformed ones.
    """

    name: str
    size: Pair
    stride: Pair
    padding: Pair
    data_dependent: bool = False

    def __str__(self) -> str:
        if self.size == (math.inf, math.inf):
            size = "infinite (it sees the whole image, as after global pooling)"
        else:
            size = f"{pixels(self.size)} px"
        if self.data_dependent:
            size = f"data-dependent (deformable); undeformed {size}"
        text = f"{self.name}: {size}, stride {pixels(self.stride)}"
        if math.inf in self.padding:
            return text
        return f"{text}, padding {pixels(self.padding)}"


def pixels(pair: Pair) -> str:
    """Formats a (vertical, horizontal) pair: "43", "43 x 51" or "infinite"."""
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
    """Computes the receptive field of an array in a model.

    After a global pooling, as in squeeze-and-excitation or in the head, it is the whole
    image, whatever its size: the field is infinite. A pooling window or kernel that
    happens to cover the whole map counts as a window.

    Args:
      model: a `flax.linen.Module` that takes images `[N, H, W, C]`, ours or another; or
        a function of the images that returns an array or a dictionary of arrays.
      image_size: of the images, in pixels: one number or (height, width). "SAME"
        padding depends on it.
      at: name of the array. In a module, a value that it sows ("stage3") or the output
        of a submodule ("stage3_block2/conv1"), with "output" for its own; in a
        function, a key of what it returns. None: the last of these that is a map.
      ignore_global: whether to leave out gates from global pooling, so that a net with
        squeeze-and-excitation has the field of the net without it.
      channels: number of channels of the images.
      **options: further arguments of the model's call, such as `train=False`.

    Returns:
      The field; it prints as a sentence.

    Raises:
      ReceptiveFieldError: if there is no array `at` (the message names the nearest
        ones), if it does not depend on the image, or if an operation before it has no
        rule.
      TypeError: if `model` is neither a module nor a function.
      ValueError: if `image_size` is invalid.

    Example:
      >>> model = cnn_flax.create_model("resnet18")
      >>> print(cnn_flax.receptive_field(model, 224, at="stage1"))
      stage1: 43 px, stride 4, padding 21
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
    """Computes the fields of all arrays in a model that have one, in program order.

    Arguments are those of `receptive_field`; names are those that its `at` takes.
    """
    arrays = trace_arrays(
        model,
        image_size,
        ignore_global=ignore_global,
        channels=channels,
        options=options,
    )
    return fields_of(arrays)


def fields_of(arrays: dict[str, Array]) -> dict[str, ReceptiveField]:
    """The fields of those arrays that have one, by name."""
    return {
        name: field_of(name, array.value)
        for name, array in arrays.items()
        if isinstance(array.value, Seen)
    }


def field_of(name: str, value: Seen) -> ReceptiveField:
    """The field of an array."""
    vertical, horizontal = value.spans
    size, stride, padding = zip(
        _extent(name, vertical), _extent(name, horizontal), strict=True
    )
    if any(a != 0 != b for a, b in zip(vertical.steps, horizontal.steps, strict=True)):
        # A flattened map: one axis runs over both axes of the image.
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
    """Converts whole numbers to int."""
    value = float(value)
    return int(value) if value.is_integer() else value
