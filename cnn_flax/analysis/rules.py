"""What each operation of a traced program sees, given what its operands see.

A rule takes the equation of the program, what is known of its operands, and what the
operands see along one axis of the image. It returns the reach of the results, one for
all of them or a list.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn_flax.analysis import reach as r
from cnn_flax.analysis.reach import NoRuleError, Reach

__all__ = ["DEFORM_CONV", "RULES", "Operands", "Rule", "deform_conv"]

# What `cnn_flax.layers.deform_conv2d` calls its operator, with the numbers in it.
DEFORM_CONV = re.compile(
    r"deform_conv2d_stride(\d+)x(\d+)_padding(\d+)x(\d+)_dilation(\d+)x(\d+)"
)


@dataclasses.dataclass(frozen=True)
class Operands:
    """The operands of an equation, along one axis of the image.

    Attributes:
      reaches: what each sees, or None where the image has no part in it.
      shapes: their shapes.
      known: functions that give an operand's value where that follows from the program
        alone, else None.
      ignore_global: whether operands that stand still are left out beside moving ones.
    """

    reaches: Sequence[Reach | None]
    shapes: Sequence[tuple[int, ...]]
    known: Sequence[Callable[[], Any] | None]
    ignore_global: bool

    def only(self) -> Reach:
        """The reach of the first operand, the others having none."""
        first, *others = self.reaches
        if first is None or any(reach is not None for reach in others):
            raise NoRuleError("whose weights or indices depend on the image")
        return first

    def union(self, shape: tuple[int, ...]) -> Reach:
        """What an elementwise operation on the operands sees."""
        seen = []
        for reach, own in zip(self.reaches, self.shapes, strict=True):
            if reach is not None:
                # A scalar, or an axis of length 1, stands for equal elements.
                axes = range(len(own))
                same = own == shape
                seen.append(reach if same else r.broadcast(reach, own, axes, shape))
        return r.union(seen, shape, ignore_global=self.ignore_global)


Rule = Callable[[Any, Operands], Reach | list[Reach]]


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


def _stack(eqn, operands):
    axis = eqn.params["axis"]
    shapes = [(*shape[:axis], 1, *shape[axis:]) for shape in operands.shapes]
    reaches = [
        None if reach is None else r.reshape(reach, old, new)
        for reach, old, new in zip(
            operands.reaches, operands.shapes, shapes, strict=True
        )
    ]
    return r.concatenate(reaches, axis, shapes, ignore_global=operands.ignore_global)


def _split(eqn, operands):
    return _pieces(operands, eqn.params["axis"], eqn.params["sizes"])


def _unstack(eqn, operands):
    axis = eqn.params["axis"]
    pieces = _pieces(operands, axis, (1,) * operands.shapes[0][axis])
    old = [1 if i == axis else n for i, n in enumerate(operands.shapes[0])]
    return [
        r.reshape(p, old, v.aval.shape)
        for p, v in zip(pieces, eqn.outvars, strict=True)
    ]


def _pieces(operands, axis, sizes):
    reach, length = operands.only(), operands.shapes[0][axis]
    starts = np.cumsum([0, *sizes[:-1]])
    return [
        r.slice_axis(reach, axis, length, int(start), int(start) + size)
        for start, size in zip(starts, sizes, strict=True)
    ]


def _tile(eqn, operands):
    reach, shape = operands.only(), list(operands.shapes[0])
    for axis, count in enumerate(eqn.params["reps"]):
        if count > 1:
            tiles, shapes = [reach] * count, [tuple(shape)] * count
            reach = r.concatenate(
                tiles, axis, shapes, ignore_global=operands.ignore_global
            )
            shape[axis] *= count
    return reach


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
    reach = operands.union(operands.shapes[0])
    axis = eqn.params["dimension" if "dimension" in eqn.params else "axis"]
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
    contracting, _ = eqn.params["dimension_numbers"]
    seen = [
        _side(eqn, operands, side)
        for side in (0, 1)
        if operands.reaches[side] is not None
    ]
    if len(seen) == 1:
        return seen[0]
    product = r.union(
        seen, eqn.outvars[0].aval.shape, ignore_global=operands.ignore_global
    )
    over_positions = any(
        reach.steps[axis] != 0
        for reach, axes in zip(operands.reaches, contracting, strict=True)
        for axis in axes
    )
    # Positions that weigh each other, as in attention, do so on an image of any size.
    return r.everywhere(product) if over_positions else product


def _side(eqn, operands, side):
    """What a product sees of one of its two operands."""
    contracting, batch = eqn.params["dimension_numbers"]
    reach, shape = operands.reaches[side], operands.shapes[side]
    summed, shared = contracting[side], batch[side]
    own = [a for a in range(len(shape)) if a not in (*summed, *shared)]
    others = len(operands.shapes[1 - side]) - len(summed) - len(shared)
    start = len(shared) + (others if side == 1 else 0)
    place = {axis: i for i, axis in enumerate(shared)}
    place |= {axis: start + i for i, axis in enumerate(own)}

    matrix = operands.known[1 - side]
    is_plain = len(summed) == others == 1 and not shared
    if matrix is not None and is_plain and reach.steps[summed[0]]:
        weights = np.moveaxis(np.asarray(matrix()), contracting[1 - side][0], 1)
        reach = _resize(reach, summed[0], weights != 0)
        place[summed[0]] = len(own) if side == 0 else 0
    elif summed:
        reach = r.contract(reach, summed)

    kept = sorted(place)
    ordered = sorted(kept, key=place.__getitem__)
    reach = r.transpose(reach, [kept.index(axis) for axis in ordered])
    new_shape = eqn.outvars[0].aval.shape
    places = sorted(place.values())
    return r.broadcast(reach, [new_shape[i] for i in places], places, new_shape)


def _resize(reach, axis, seen):
    """A product along an axis with a known matrix, of which `seen` is not zero."""
    low = np.moveaxis(reach.low, axis, 0)
    high = np.moveaxis(reach.high, axis, 0)
    seen = seen.reshape(*seen.shape, *[1] * (low.ndim - 1))
    low = np.where(seen, low, math.inf).min(1)
    high = np.where(seen, high, -math.inf).max(1)
    step = reach.steps[axis] * seen.shape[1] / seen.shape[0]
    resized = reach.but(np.moveaxis(low, 0, axis), np.moveaxis(high, 0, axis))
    return r.settle(resized, axis, step)


def _gather(eqn, operands):
    reach, shape = operands.only(), operands.shapes[0]
    if operands.known[1] is None:
        raise NoRuleError("whose indices are not known before the program runs")
    indices = operands.known[1]()
    pair = []
    for pixels in (reach.low, reach.high):
        # Images are below 2 ** 24 px wide: float32 holds them.
        full = jnp.asarray(np.broadcast_to(pixels, shape), jnp.float32)
        gathered = eqn.primitive.bind(full, indices, **eqn.params)
        pair.append(np.asarray(gathered, float))
    return _regular(reach, shape, *pair)


def _regular(reach, shape, low, high):
    """Gathered pixels, with axes of length 1 where nothing changes, and their steps."""
    steps: list[Fraction | None] = []
    for axis in range(low.ndim):
        low_end, high_end = np.take(low, [0], axis), np.take(high, [0], axis)
        if np.all(low == low_end) and np.all(high == high_end):
            low, high = low_end, high_end
            steps.append(Fraction(0))
        else:
            steps.append(None)
    gathered = reach.but(low, high, steps=tuple(steps))
    walking = [axis for axis, step in enumerate(reach.steps) if step]
    changing = [axis for axis, step in enumerate(steps) if step is None]
    if len(walking) != 1 or len(changing) != 1:
        return gathered
    step = reach.steps[walking[0]] * shape[walking[0]] / low.shape[changing[0]]
    return r.settle(gathered, changing[0], step)


def deform_conv(eqn: Any, operands: Operands) -> Reach:
    """The rule for `deform_conv2d`, a function whose name says its geometry.

    It is that of the plain convolution, and a mark that the data choose.
    """
    name = DEFORM_CONV.fullmatch(eqn.params["name"])
    assert name is not None
    numbers = [int(number) for number in name.groups()]
    stride, padding, dilation = numbers[:2], numbers[2:4], numbers[4:]
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
    "split": _split,
    "stack": _stack,
    "tile": _tile,
    "top_k": _sort,
    "transpose": _transpose,
    "unstack": _unstack,
}
