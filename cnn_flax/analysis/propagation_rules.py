"""Rules that propagate spans of pixels through the primitives of a traced program.

A rule takes an equation of the program and its operands along one axis of the image. It
returns the span of all results, or a list of one per result.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn_flax.analysis import pixel_span
from cnn_flax.analysis.pixel_span import NoRuleError, PixelSpan

__all__ = ["DEFORM_CONV", "RULES", "Operands", "Rule", "deform_conv"]

# The name of the operator of `cnn_flax.layers.deform_conv2d`, with its geometry.
DEFORM_CONV = re.compile(
    r"deform_conv2d_stride(\d+)x(\d+)_padding(\d+)x(\d+)_dilation(\d+)x(\d+)"
)


@dataclasses.dataclass(frozen=True)
class Operands:
    """The operands of an equation, along one axis of the image.

    Attributes:
      spans: of each operand; None if it does not depend on the image.
      shapes: of each operand.
      constants: functions that return the value of an operand that the program alone
        determines; None for the others.
      ignore_global: whether to leave out operands without positions; see
        `pixel_span.union`.
    """

    spans: Sequence[PixelSpan | None]
    shapes: Sequence[tuple[int, ...]]
    constants: Sequence[Callable[[], Any] | None]
    ignore_global: bool

    def only(self) -> PixelSpan:
        """The span of the first operand, if no other depends on the image."""
        first, *others = self.spans
        if first is None or any(span is not None for span in others):
            raise NoRuleError("whose weights or indices depend on the image")
        return first

    def union(self, shape: tuple[int, ...]) -> PixelSpan:
        """The span of an elementwise operation on the operands."""
        seen = []
        for span, own in zip(self.spans, self.shapes, strict=True):
            if span is not None:
                # Scalars and axes of length 1 broadcast.
                axes = range(len(own))
                same = own == shape
                seen.append(
                    span if same else pixel_span.broadcast(span, own, axes, shape)
                )
        return pixel_span.union(seen, shape, ignore_global=self.ignore_global)


Rule = Callable[[Any, Operands], PixelSpan | list[PixelSpan]]


def _elementwise(eqn, operands):
    return operands.union(eqn.outvars[0].aval.shape)


def _broadcast_in_dim(eqn, operands):
    p = eqn.params
    shape = operands.shapes[0]
    return pixel_span.broadcast(
        operands.only(), shape, p["broadcast_dimensions"], eqn.outvars[0].aval.shape
    )


def _reshape(eqn, operands):
    if eqn.params["dimensions"] is not None:
        raise NoRuleError("with dimensions")
    return pixel_span.reshape(
        operands.only(), operands.shapes[0], eqn.outvars[0].aval.shape
    )


def _squeeze(eqn, operands):
    span, gone = operands.only(), eqn.params["dimensions"]
    gone = tuple(axis % span.low.ndim for axis in gone)
    steps = tuple(s for axis, s in enumerate(span.steps) if axis not in gone)
    return span.replace(span.low.squeeze(gone), span.high.squeeze(gone), steps=steps)


def _transpose(eqn, operands):
    return pixel_span.transpose(operands.only(), eqn.params["permutation"])


def _rev(eqn, operands):
    return pixel_span.reverse(operands.only(), eqn.params["dimensions"])


def _slice(eqn, operands):
    p = eqn.params
    return _cut(
        operands.only(),
        operands.shapes[0],
        p["start_indices"],
        p["limit_indices"],
        p["strides"] or (1,) * len(p["start_indices"]),
    )


def _dynamic_slice(eqn, operands):
    span, shape = operands.only(), operands.shapes[0]
    sizes = eqn.params["slice_sizes"]
    starts = []
    for axis, value in enumerate(operands.constants[1:]):
        if value is None and (sizes[axis] < shape[axis]):
            raise NoRuleError("whose indices are not known before the program runs")
        start = 0 if value is None else int(value())
        starts.append(min(max(start, 0), shape[axis] - sizes[axis]))
    limits = [start + size for start, size in zip(starts, sizes, strict=True)]
    return _cut(span, shape, starts, limits, [1] * len(shape))


def _cut(span, shape, starts, limits, strides):
    for axis, start in enumerate(starts):
        if (start, limits[axis], strides[axis]) != (0, shape[axis], 1):
            span = pixel_span.slice_axis(
                span, axis, shape[axis], start, limits[axis], strides[axis]
            )
    return span


def _stack(eqn, operands):
    axis = eqn.params["axis"]
    shapes = [(*shape[:axis], 1, *shape[axis:]) for shape in operands.shapes]
    spans = [
        None if span is None else pixel_span.reshape(span, old, new)
        for span, old, new in zip(operands.spans, operands.shapes, shapes, strict=True)
    ]
    return pixel_span.concatenate(
        spans, axis, shapes, ignore_global=operands.ignore_global
    )


def _split(eqn, operands):
    return _pieces(operands, eqn.params["axis"], eqn.params["sizes"])


def _unstack(eqn, operands):
    axis = eqn.params["axis"]
    pieces = _pieces(operands, axis, (1,) * operands.shapes[0][axis])
    old = [1 if i == axis else n for i, n in enumerate(operands.shapes[0])]
    return [
        pixel_span.reshape(p, old, v.aval.shape)
        for p, v in zip(pieces, eqn.outvars, strict=True)
    ]


def _pieces(operands, axis, sizes):
    span, length = operands.only(), operands.shapes[0][axis]
    starts = np.cumsum([0, *sizes[:-1]])
    return [
        pixel_span.slice_axis(span, axis, length, int(start), int(start) + size)
        for start, size in zip(starts, sizes, strict=True)
    ]


def _tile(eqn, operands):
    span, shape = operands.only(), list(operands.shapes[0])
    for axis, count in enumerate(eqn.params["reps"]):
        if count > 1:
            tiles, shapes = [span] * count, [tuple(shape)] * count
            span = pixel_span.concatenate(
                tiles, axis, shapes, ignore_global=operands.ignore_global
            )
            shape[axis] *= count
    return span


def _pad(eqn, operands):
    span, shape = operands.only(), operands.shapes[0]
    for axis, (low, high, interior) in enumerate(eqn.params["padding_config"]):
        if (low, high, interior) != (0, 0, 0):
            span = pixel_span.window(
                span,
                axis,
                shape[axis],
                size=1,
                padding=(low, high),
                base_dilation=interior + 1,
            )
    return span


def _concatenate(eqn, operands):
    return pixel_span.concatenate(
        operands.spans,
        eqn.params["dimension"],
        operands.shapes,
        ignore_global=operands.ignore_global,
    )


def _reduce(eqn, operands):
    axes = eqn.params["axes"] if "axes" in eqn.params else eqn.params["dimensions"]
    shape = max(operands.shapes, key=len)
    return (
        pixel_span.reduce(operands.union(shape), axes)
        if axes
        else operands.union(shape)
    )


def _cumulate(eqn, operands):
    return pixel_span.cumulate(
        operands.only(), eqn.params["axis"], backward=eqn.params["reverse"]
    )


def _sort(eqn, operands):
    span = operands.union(operands.shapes[0])
    axis = eqn.params["dimension" if "dimension" in eqn.params else "axis"]
    if span.steps[axis] != 0:
        return pixel_span.everywhere(span)
    return span.replace(
        span.low.min(axis=axis, keepdims=True),
        span.high.max(axis=axis, keepdims=True),
    )


def _reduce_window(eqn, operands):
    p = eqn.params
    shape = max(operands.shapes, key=len)
    span = operands.union(shape)
    for axis, size in enumerate(p["window_dimensions"]):
        span = pixel_span.window(
            span,
            axis,
            shape[axis],
            size=size,
            stride=p["window_strides"][axis],
            padding=p["padding"][axis],
            base_dilation=p["base_dilation"][axis],
            window_dilation=p["window_dilation"][axis],
        )
    return span


def _conv(eqn, operands):
    p = eqn.params
    if p["batch_group_count"] != 1:
        raise NoRuleError("with groups of images")
    span = operands.only()
    numbers = p["dimension_numbers"]
    shape, kernel = operands.shapes
    spatial = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], strict=True)
    for i, (axis, tap) in enumerate(spatial):
        span = pixel_span.window(
            span,
            axis,
            shape[axis],
            size=kernel[tap],
            stride=p["window_strides"][i],
            padding=p["padding"][i],
            base_dilation=p["lhs_dilation"][i],
            window_dilation=p["rhs_dilation"][i],
        )
    span = _mix_channels(
        span,
        numbers.lhs_spec[1],
        shape[numbers.lhs_spec[1]],
        kernel[numbers.rhs_spec[0]],
        p["feature_group_count"],
    )
    source = dict(zip(numbers.out_spec, numbers.lhs_spec, strict=True))
    return pixel_span.transpose(span, [source[axis] for axis in range(len(shape))])


def _mix_channels(span, axis, channels, features, groups):
    """Each group of output features sees what its group of channels sees."""
    steps = tuple(Fraction(0) if i == axis else s for i, s in enumerate(span.steps))
    pair = []
    for pixels, extreme in ((span.low, np.min), (span.high, np.max)):
        if pixels.shape[axis] > 1:
            pixels = np.moveaxis(pixels, axis, 0)
            pixels = pixels.reshape(groups, channels // groups, *pixels.shape[1:])
            pixels = np.repeat(extreme(pixels, axis=1), features // groups, axis=0)
            pixels = np.moveaxis(pixels, 0, axis)
        pair.append(pixels)
    return span.replace(pair[0], pair[1], steps=steps)


def _dot_general(eqn, operands):
    contracting, _ = eqn.params["dimension_numbers"]
    seen = [
        _side(eqn, operands, side)
        for side in (0, 1)
        if operands.spans[side] is not None
    ]
    if len(seen) == 1:
        return seen[0]
    product = pixel_span.union(
        seen, eqn.outvars[0].aval.shape, ignore_global=operands.ignore_global
    )
    over_positions = any(
        span.steps[axis] != 0
        for span, axes in zip(operands.spans, contracting, strict=True)
        for axis in axes
    )
    # Products over positions, as in attention, see everything at any image size.
    return pixel_span.everywhere(product) if over_positions else product


def _side(eqn, operands, side):
    """The span of a product through one of its two operands."""
    contracting, batch = eqn.params["dimension_numbers"]
    span, shape = operands.spans[side], operands.shapes[side]
    summed, shared = contracting[side], batch[side]
    own = [a for a in range(len(shape)) if a not in (*summed, *shared)]
    others = len(operands.shapes[1 - side]) - len(summed) - len(shared)
    start = len(shared) + (others if side == 1 else 0)
    result_axis = {axis: i for i, axis in enumerate(shared)}
    result_axis |= {axis: start + i for i, axis in enumerate(own)}

    matrix = operands.constants[1 - side]
    is_plain = len(summed) == others == 1 and not shared
    if matrix is not None and is_plain and span.steps[summed[0]]:
        weights = np.moveaxis(np.asarray(matrix()), contracting[1 - side][0], 1)
        span = _resize(span, summed[0], weights != 0)
        result_axis[summed[0]] = len(own) if side == 0 else 0
    elif summed:
        span = pixel_span.contract(span, summed)

    remaining = sorted(result_axis)
    ordered = sorted(remaining, key=result_axis.__getitem__)
    span = pixel_span.transpose(span, [remaining.index(axis) for axis in ordered])
    new_shape = eqn.outvars[0].aval.shape
    axes = sorted(result_axis.values())
    return pixel_span.broadcast(span, [new_shape[i] for i in axes], axes, new_shape)


def _resize(span, axis, seen):
    """The span of a product along an axis with a constant matrix, nonzero at `seen`."""
    low = np.moveaxis(span.low, axis, 0)
    high = np.moveaxis(span.high, axis, 0)
    seen = seen.reshape(*seen.shape, *[1] * (low.ndim - 1))
    low = np.where(seen, low, math.inf).min(1)
    high = np.where(seen, high, -math.inf).max(1)
    step = span.steps[axis] * seen.shape[1] / seen.shape[0]
    resized = span.replace(np.moveaxis(low, 0, axis), np.moveaxis(high, 0, axis))
    return pixel_span.regularise(resized, axis, step)


def _gather(eqn, operands):
    span, shape = operands.only(), operands.shapes[0]
    if operands.constants[1] is None:
        raise NoRuleError("whose indices are not known before the program runs")
    indices = operands.constants[1]()
    pair = []
    for pixels in (span.low, span.high):
        # float32 is exact for pixel indices below 2 ** 24.
        full = jnp.asarray(np.broadcast_to(pixels, shape), jnp.float32)
        gathered = eqn.primitive.bind(full, indices, **eqn.params)
        pair.append(np.asarray(gathered, float))
    return _regular(span, shape, *pair)


def _regular(span, shape, low, high):
    """The span of gathered pixels: constant axes get length 1, others their step."""
    steps: list[Fraction | None] = []
    for axis in range(low.ndim):
        low_end, high_end = np.take(low, [0], axis), np.take(high, [0], axis)
        if np.all(low == low_end) and np.all(high == high_end):
            low, high = low_end, high_end
            steps.append(Fraction(0))
        else:
            steps.append(None)
    gathered = span.replace(low, high, steps=tuple(steps))
    source = [axis for axis, step in enumerate(span.steps) if step]
    target = [axis for axis, step in enumerate(steps) if step is None]
    if len(source) != 1 or len(target) != 1:
        return gathered
    step = span.steps[source[0]] * shape[source[0]] / low.shape[target[0]]
    return pixel_span.regularise(gathered, target[0], step)


def deform_conv(eqn: Any, operands: Operands) -> PixelSpan:
    """The rule for `deform_conv2d`, a function whose name contains its geometry.

    The span is that of the plain convolution, marked as `deformed`.
    """
    name = DEFORM_CONV.fullmatch(eqn.params["name"])
    assert name is not None
    numbers = [int(number) for number in name.groups()]
    stride, padding, dilation = numbers[:2], numbers[2:4], numbers[4:]
    image, *others = operands.spans
    shape, _, kernel, *_ = operands.shapes
    seen = []
    if image is not None:
        for i, axis in enumerate((1, 2)):
            image = pixel_span.window(
                image,
                axis,
                shape[axis],
                size=kernel[i],
                stride=stride[i],
                padding=(padding[i], padding[i]),
                window_dilation=dilation[i],
            )
        seen.append(_over_channels(image))
    # Offsets and masks depend on the image too.
    seen += [_over_channels(span) for span in others if span is not None]
    joined = pixel_span.union(
        seen, eqn.outvars[0].aval.shape, ignore_global=operands.ignore_global
    )
    return joined.replace(joined.low, joined.high, deformed=True)


def _over_channels(span):
    return _mix_channels(span, 3, span.low.shape[3], 1, 1)


_ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp conj
    convert_element_type copy copy_p cos cosh device_put digamma div eq erf erf_inv
    erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p
    logistic lt max min mul name ne neg nextafter not or population_count pow real
    reduce_precision rem round rsqrt select_n sharding_constraint shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square
    stop_gradient sub tan tanh xor
"""
_REDUCTIONS = """
    argmax argmin reduce reduce_and reduce_max reduce_min reduce_or reduce_prod
    reduce_sum reduce_xor
"""
_WINDOWS = "reduce_window reduce_window_max reduce_window_min reduce_window_sum"
_CUMULATIVE = "cumlogsumexp cummax cummin cumprod cumsum"

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_REDUCTIONS.split(), _reduce),
    **dict.fromkeys(_WINDOWS.split(), _reduce_window),
    **dict.fromkeys(_CUMULATIVE.split(), _cumulate),
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "sort": _sort,
    "squeeze": _squeeze,
    "split": _split,
    "stack": _stack,
    "tile": _tile,
    "top_k": _sort,
    "transpose": _transpose,
    "unstack": _unstack,
}
