"""What each operation of a traced program sees, given what its operands see.

A rule takes the equation of the program, what is known of its operands, and what the
operands see along one axis of the image: a `Reach`, or None where the image has no part
in an operand. It returns the reach of the result.
"""

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn_flax.analysis import reach as r
from cnn_flax.analysis.reach import NoRuleError, Reach

__all__ = ["DEFORM_CONV", "RULES", "Rule", "deform_conv"]

DEFORM_CONV = "deform_conv2d"


class Operands:
    """The operands of an equation, along one axis of the image.

    Attributes:
      reaches: what each sees, or None.
      shapes: their shapes.
      known: functions that give an operand's value where that follows from the program
        alone, else None.
      ignore_global: whether operands that stand still are left out beside moving ones.
    """

    def __init__(
        self,
        reaches: Sequence[Reach | None],
        shapes: Sequence[tuple[int, ...]],
        known: Sequence[Callable[[], Any] | None],
        ignore_global: bool,
    ):
        self.reaches = reaches
        self.shapes = shapes
        self.known = known
        self.ignore_global = ignore_global

    def only(self, index: int = 0) -> Reach:
        """The reach of one operand, the others having none."""
        for i, reach in enumerate(self.reaches):
            if i != index and reach is not None:
                raise NoRuleError("whose weights or indices depend on the image")
        return self.reaches[index]  # type: ignore[return-value]

    def union(self, shape: tuple[int, ...]) -> Reach:
        """What an elementwise operation on the operands sees."""
        seen = []
        for reach, own in zip(self.reaches, self.shapes, strict=True):
            if reach is not None:
                # A scalar stands for an array of equal elements.
                scalar = own == () != shape
                seen.append(r.broadcast(reach, (), (), shape) if scalar else reach)
        return r.union(seen, shape, ignore_global=self.ignore_global)


Rule = Callable[[Any, Operands], Reach]


def _elementwise(eqn, operands):
    return operands.union(eqn.outvars[0].aval.shape)


def _broadcast_in_dim(eqn, operands):
    p = eqn.params
    shape = operands.shapes[0]
    return r.broadcast(
        operands.only(), shape, p["broadcast_dimensions"], eqn.outvars[0].aval.shape
    )


def _reshape(eqn, operands):
    if eqn.params["dimensions"] is not None:
        raise NoRuleError("with dimensions")
    return r.reshape(operands.only(), operands.shapes[0], eqn.outvars[0].aval.shape)


def _squeeze(eqn, operands):
    reach, gone = operands.only(), eqn.params["dimensions"]
    gone = tuple(axis % reach.low.ndim for axis in gone)
    steps = tuple(s for axis, s in enumerate(reach.steps) if axis not in gone)
    return reach.but(reach.low.squeeze(gone), reach.high.squeeze(gone), steps=steps)


def _transpose(eqn, operands):
    return r.transpose(operands.only(), eqn.params["permutation"])


def _rev(eqn, operands):
    return r.reverse(operands.only(), eqn.params["dimensions"])


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
    reach, shape = operands.only(), operands.shapes[0]
    sizes = eqn.params["slice_sizes"]
    starts = []
    for axis, known in enumerate(operands.known[1:]):
        if known is None and (sizes[axis] < shape[axis]):
            raise NoRuleError("whose indices are not known before the program runs")
        start = 0 if known is None else int(known())
        starts.append(min(max(start, 0), shape[axis] - sizes[axis]))
    limits = [start + size for start, size in zip(starts, sizes, strict=True)]
    return _cut(reach, shape, starts, limits, [1] * len(shape))


def _cut(reach, shape, starts, limits, strides):
    for axis, start in enumerate(starts):
        if (start, limits[axis], strides[axis]) != (0, shape[axis], 1):
            reach = r.slice_axis(
                reach, axis, shape[axis], start, limits[axis], strides[axis]
            )
    return reach


def split(eqn: Any, operands: Operands) -> list[Reach]:
    """The rule for `split`, which has several results."""
    reach, axis = operands.only(), eqn.params["axis"]
    length = operands.shapes[0][axis]
    pieces, start = [], 0
    for size in eqn.params["sizes"]:
        pieces.append(r.slice_axis(reach, axis, length, start, start + size))
        start += size
    return pieces


def _pad(eqn, operands):
    reach, shape = operands.only(), operands.shapes[0]
    for axis, (low, high, interior) in enumerate(eqn.params["padding_config"]):
        if (low, high, interior) != (0, 0, 0):
            reach = r.window(
                reach,
                axis,
                shape[axis],
                size=1,
                padding=(low, high),
                base_dilation=interior + 1,
            )
    return reach


def _concatenate(eqn, operands):
    return r.concatenate(
        operands.reaches,
        eqn.params["dimension"],
        operands.shapes,
        ignore_global=operands.ignore_global,
    )


def _reduce(eqn, operands):
    axes = eqn.params["axes"] if "axes" in eqn.params else eqn.params["dimensions"]
    shape = max(operands.shapes, key=len)
    return r.reduce(operands.union(shape), axes) if axes else operands.union(shape)


def _cumulate(eqn, operands):
    return r.cumulate(
        operands.only(), eqn.params["axis"], backward=eqn.params["reverse"]
    )


def _sort(eqn, operands):
    reach, axis = operands.union(operands.shapes[0]), eqn.params["dimension"]
    if reach.steps[axis] != 0:
        return r.everywhere(reach)
    return reach.but(
        reach.low.min(axis=axis, keepdims=True),
        reach.high.max(axis=axis, keepdims=True),
    )


def _reduce_window(eqn, operands):
    p = eqn.params
    shape = max(operands.shapes, key=len)
    reach = operands.union(shape)
    for axis, size in enumerate(p["window_dimensions"]):
        reach = r.window(
            reach,
            axis,
            shape[axis],
            size=size,
            stride=p["window_strides"][axis],
            padding=p["padding"][axis],
            base_dilation=p["base_dilation"][axis],
            window_dilation=p["window_dilation"][axis],
        )
    return reach


def _conv(eqn, operands):
    p = eqn.params
    if p["batch_group_count"] != 1:
        raise NoRuleError("with groups of images")
    reach = operands.only()
    numbers = p["dimension_numbers"]
    shape, kernel = operands.shapes
    spatial = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], strict=True)
    for i, (axis, tap) in enumerate(spatial):
        reach = r.window(
            reach,
            axis,
            shape[axis],
            size=kernel[tap],
            stride=p["window_strides"][i],
            padding=p["padding"][i],
            base_dilation=p["lhs_dilation"][i],
            window_dilation=p["rhs_dilation"][i],
        )
    reach = _mix_channels(
        reach,
        numbers.lhs_spec[1],
        shape[numbers.lhs_spec[1]],
        kernel[numbers.rhs_spec[0]],
        p["feature_group_count"],
    )
    source = dict(zip(numbers.out_spec, numbers.lhs_spec, strict=True))
    return r.transpose(reach, [source[axis] for axis in range(len(shape))])


def _mix_channels(reach, axis, channels, features, groups):
    """Each group of features sees what its group of channels sees."""
    steps = tuple(Fraction(0) if i == axis else s for i, s in enumerate(reach.steps))
    pair = []
    for pixels, extreme in ((reach.low, np.min), (reach.high, np.max)):
        if pixels.shape[axis] > 1:
            pixels = np.moveaxis(pixels, axis, 0)
            pixels = pixels.reshape(groups, channels // groups, *pixels.shape[1:])
            pixels = np.repeat(extreme(pixels, axis=1), features // groups, axis=0)
            pixels = np.moveaxis(pixels, 0, axis)
        pair.append(pixels)
    return reach.but(pair[0], pair[1], steps=steps)


def _dot_general(eqn, operands):
    contracting, batch = eqn.params["dimension_numbers"]
    sides = []
    for side in (0, 1):
        if operands.reaches[side] is not None:
            sides.append(_side(operands, side, contracting, batch, len(sides)))
    if len(sides) == 1:
        return sides[0]
    # Positions that weigh each other: attention.
    shape = eqn.outvars[0].aval.shape
    product = r.union(sides, shape, ignore_global=operands.ignore_global)
    summed = [
        reach.steps[axis]
        for reach, axes in zip(operands.reaches, contracting, strict=True)
        for axis in axes
    ]
    return r.everywhere(product) if any(s != 0 for s in summed) else product


def _side(operands, side, contracting, batch, _):
    """What a product sees of one of its two sides, in the product's axes."""
    reach, shape, other = (
        operands.reaches[side],
        operands.shapes[side],
        operands.shapes[1 - side],
    )
    summed, shared = contracting[side], batch[side]
    others = [
        axis
        for axis in range(len(other))
        if axis not in contracting[1 - side] and axis not in batch[1 - side]
    ]
    own = [a for a in range(len(shape)) if a not in summed and a not in shared]
    matrix = operands.known[1 - side]
    ones = (len(summed), len(others), len(shared)) == (1, 1, 0) and len(other) == 2
    if matrix is not None and ones and reach.steps[summed[0]]:
        return _resize(reach, shape, summed[0], own, matrix(), others[0], side)
    low_axes = [*shared, *own]
    left = r.contract(reach, summed) if summed else reach
    # Axes are now in their old order; put them into the product's.
    kept = [a for a in range(len(shape)) if a not in summed]
    left = r.transpose(left, [kept.index(a) for a in low_axes])
    lengths = [shape[a] for a in low_axes]
    start = len(shared)
    if side == 0:
        dimensions = list(range(len(low_axes)))
    else:
        dimensions = [
            *range(start),
            *range(start + len(others), start + len(others) + len(own)),
        ]
    new = [1] * (len(low_axes) + len(others))
    for axis, n in zip(dimensions, lengths, strict=True):
        new[axis] = n
    return r.broadcast(left, lengths, dimensions, new)


def _resize(reach, shape, axis, own, matrix, free, side):
    """A product with a matrix whose zeros are known: what is not zero is seen."""
    weights = np.asarray(matrix) != 0
    weights = weights if free == 0 else weights.T
    length = shape[axis]
    low = np.moveaxis(np.asarray(reach.low), axis, 0)
    high = np.moveaxis(np.asarray(reach.high), axis, 0)
    wide = weights.reshape(*weights.shape, *[1] * (low.ndim - 1))
    low = np.where(wide, low[None], math.inf).min(1)
    high = np.where(wide, high[None], -math.inf).max(1)
    step = reach.steps[axis] * length / len(weights)
    steps = (None, *(s for i, s in enumerate(reach.steps) if i != axis))
    resized = r.settle(reach.but(low, high, steps=steps), 0, step)
    order = [1 + i for i in range(len(own))]
    return r.transpose(resized, [*order, 0] if side == 0 else [0, *order])


def _gather(eqn, operands):
    reach, shape = operands.only(), operands.shapes[0]
    if operands.known[1] is None:
        raise NoRuleError("whose indices are not known before the program runs")
    indices = operands.known[1]()
    pair = []
    for pixels in (reach.low, reach.high):
        # Images are below 2 ** 24 px wide: float32 holds them.
        full = jnp.asarray(np.broadcast_to(pixels, shape), jnp.float32)
        params = eqn.params
        pair.append(np.asarray(eqn.primitive.bind(full, indices, **params), float))
    return _regular(reach, shape, *pair)


def _regular(reach, shape, low, high):
    """Gathered pixels, with axes of length 1 where nothing changes and their steps."""
    steps: list[Fraction | None] = []
    for axis in range(low.ndim):
        first = [np.take(pixels, [0], axis) for pixels in (low, high)]
        if np.array_equal(np.broadcast_to(first[0], low.shape), low) and np.array_equal(
            np.broadcast_to(first[1], high.shape), high
        ):
            low, high = first
            steps.append(Fraction(0))
        else:
            steps.append(None)
    gathered = reach.but(low, high, steps=tuple(steps))
    walking = [axis for axis, step in enumerate(reach.steps) if step]
    uneven = [axis for axis, step in enumerate(steps) if step is None]
    if len(walking) == len(uneven) == 1:
        (axis,), (new,) = walking, uneven
        step = reach.steps[axis] * shape[axis] / low.shape[new]
        return r.settle(gathered, new, step)
    return gathered


def deform_conv(eqn: Any, operands: Operands) -> Reach:
    """The rule for `deform_conv2d`, a function whose name says its geometry.

    It is that of the plain convolution, and a mark that the data choose.
    """
    numbers = re.findall(r"(\d+)x(\d+)", eqn.params["name"])
    stride, padding, dilation = (tuple(map(int, pair)) for pair in numbers)
    image, *others = operands.reaches
    shape, _, kernel, *_ = operands.shapes
    seen = []
    if image is not None:
        for i, axis in enumerate((1, 2)):
            image = r.window(
                image,
                axis,
                shape[axis],
                size=kernel[i],
                stride=stride[i],
                padding=(padding[i], padding[i]),
                window_dilation=dilation[i],
            )
        seen.append(_whole_channels(image))
    # Offsets and masks come from the image too.
    seen += [_whole_channels(reach) for reach in others if reach is not None]
    joined = r.union(
        seen, eqn.outvars[0].aval.shape, ignore_global=operands.ignore_global
    )
    return joined.but(joined.low, joined.high, deformed=True)


def _whole_channels(reach):
    return _mix_channels(reach, 3, reach.low.shape[3], 1, 1)


_ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp
    convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2
    expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max min
    mul name ne neg nextafter not or population_count pow real reduce_precision rem
    round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin
    sinh sqrt square stop_gradient sub tan tanh xor
"""
_REDUCTIONS = """
    argmax argmin reduce reduce_and reduce_max reduce_min reduce_or reduce_prod
    reduce_sum reduce_xor
"""
_WINDOWS = "reduce_window reduce_window_max reduce_window_min reduce_window_sum"
_RUNNING = "cumlogsumexp cummax cummin cumprod cumsum"

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_REDUCTIONS.split(), _reduce),
    **dict.fromkeys(_WINDOWS.split(), _reduce_window),
    **dict.fromkeys(_RUNNING.split(), _cumulate),
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
    "transpose": _transpose,
}
