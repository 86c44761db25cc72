"""Which pixels the elements of an array see along one axis of the image.

An element sees the pixels from `low` to `high`. They are not cut at the image's border:
zeros around a map count as if the image went on, so that along an axis which walks over
the image, position p sees `p * step + [a, b]`.
"""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

__all__ = [
    "NoRuleError",
    "Reach",
    "broadcast",
    "concatenate",
    "contract",
    "cumulate",
    "everywhere",
    "of_image",
    "reduce",
    "reshape",
    "reverse",
    "settle",
    "slice_axis",
    "transpose",
    "union",
    "window",
]

Shape = Sequence[int]
Step = Fraction | None


class NoRuleError(Exception):
    """What an operation sees is not known; the message says of which operation."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reach:
    """What each element of an array sees along one axis of the image.

    Attributes:
      low: first pixel, float, of the array's rank. An axis along which nothing changes
        has length 1 here. Nothing seen is infinity, and everything minus infinity.
      high: last pixel, likewise.
      steps: for each axis the pixels from one element to the next: 0 along channels,
        None where the distance is not the same everywhere.
      scale: pixels from one position to the next of the map that the array was made of.
      cut: whether it is a piece of a map, cut out by a slice.
      deformed: whether a deformable convolution lies between, so that the data choose.
    """

    low: np.ndarray
    high: np.ndarray
    steps: tuple[Step, ...]
    scale: Fraction = Fraction(1)
    cut: bool = False
    deformed: bool = False

    @property
    def is_global(self) -> bool:
        """Whether every element sees everything."""
        return bool(np.all(self.low == -math.inf) and np.all(self.high == math.inf))

    @property
    def walks(self) -> bool:
        """Whether some axis moves over the image in even steps."""
        return any(self.steps)

    def but(self, low: np.ndarray, high: np.ndarray, **fields) -> "Reach":
        """The same with other pixels."""
        return dataclasses.replace(self, low=low, high=high, **fields)


def of_image(rank: int, axis: int, size: int) -> Reach:
    """What the pixels of an image themselves see, along one of its axes."""
    pixels = np.arange(size, dtype=float).reshape(
        [size if i == axis else 1 for i in range(rank)]
    )
    steps = tuple(Fraction(int(i == axis)) for i in range(rank))
    return Reach(pixels, pixels, steps)


def everywhere(reach: Reach) -> Reach:
    """Elements that see the whole image."""
    return reach.but(
        np.full_like(reach.low, -math.inf), np.full_like(reach.high, math.inf)
    )


def union(reaches: Sequence[Reach], shape: Shape, *, ignore_global: bool) -> Reach:
    """What an elementwise operation sees, given what its operands see.

    Operands that move over the image at different speeds have nothing of the form
    `p * step + [a, b]` in common: on a map without end they drift apart without bound,
    and see everything.

    Args:
      reaches: of the operands, all of the result's rank.
      shape: the result's.
      ignore_global: whether operands that stand still, such as a gate from a pooled
        vector, are left out where others move.
    """
    if ignore_global:
        reaches = _moving(reaches, shape)
    steps, apart = _common_steps(reaches, shape)
    low, high = reaches[0].low, reaches[0].high
    for reach in reaches[1:]:
        low, high = np.minimum(low, reach.low), np.maximum(high, reach.high)
    joined = Reach(
        low,
        high,
        steps,
        max(reach.scale for reach in reaches),
        all(reach.cut for reach in reaches),
        any(reach.deformed for reach in reaches),
    )
    return everywhere(joined) if apart else joined


def _moving(reaches, shape):
    """Without those that see everything, or the same from all positions."""
    moving = [reach for reach in reaches if not reach.is_global] or list(reaches)
    for axis, n in enumerate(shape):
        if n > 1 and any(reach.steps[axis] for reach in moving):
            moving = [reach for reach in moving if reach.steps[axis] != 0]
    return moving


def _common_steps(reaches, shape):
    """The steps along each axis, and whether operands walk apart."""
    local = [reach for reach in reaches if not reach.is_global] or reaches
    steps, apart = [], False
    for axis, n in enumerate(shape):
        found = {reach.steps[axis] for reach in local}
        if None in found:
            steps.append(None)
            continue
        apart |= n > 1 and len(found) > 1
        steps.append(max(found))
    return tuple(steps), apart


def reduce(reach: Reach, axes: Sequence[int]) -> Reach:
    """What a sum or maximum over some axes sees; the axes go.

    Over all positions of a map it is a global pooling, which sees everything, whatever
    the image's size. Over a piece that was cut out it is a window.
    """
    over = [reach.steps[axis] for axis in axes]
    kept = tuple(s for axis, s in enumerate(reach.steps) if axis not in axes)
    pooled = reach.but(
        reach.low.min(axis=tuple(axes)),
        reach.high.max(axis=tuple(axes)),
        steps=kept,
    )
    is_global = any(s != 0 for s in over) and not any(kept) and not reach.cut
    return everywhere(pooled) if is_global else pooled


def contract(reach: Reach, axes: Sequence[int]) -> Reach:
    """What a product with weights sees that sums over some axes; the axes go.

    A dense layer on a flattened map is the convolution whose kernel has the map's size.
    """
    return reach.but(
        reach.low.min(axis=tuple(axes)),
        reach.high.max(axis=tuple(axes)),
        steps=tuple(s for axis, s in enumerate(reach.steps) if axis not in axes),
    )


def window(
    reach: Reach,
    axis: int,
    length: int,
    *,
    size: int,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    base_dilation: int = 1,
    window_dilation: int = 1,
) -> Reach:
    """What a window sees that slides along an axis.

    Args:
      reach: of the operand.
      axis: the axis.
      length: elements of the operand along it.
      size: taps of the window.
      stride: elements from one window to the next, after `base_dilation`.
      padding: elements put before and behind; negative ones are taken away.
      base_dilation: distance to which the operand's elements are spread, with zeros
        between them.
      window_dilation: distance between taps.
    """
    if reach.low.shape[axis] == 1 and reach.steps[axis] == 0:
        return reach
    spread = (length - 1) * base_dilation + 1 + sum(padding)
    count = max(0, (spread - (size - 1) * window_dilation - 1) // stride + 1)
    taps = np.arange(size)[:, None] * window_dilation - padding[0]
    index = np.arange(count) * stride + taps
    hit = index % base_dilation == 0
    index //= base_dilation
    before = max(0, -int(index[hit].min(initial=0)))
    after = max(0, int(index[hit].max(initial=0)) - length + 1)
    low, high = _extended(reach, axis, length, before, after)
    index = np.where(hit, index + before, low.shape[0])
    nothing = np.full((1, *low.shape[1:]), math.inf)
    low = np.concatenate([low, nothing])[index].min(0)
    high = np.concatenate([high, -nothing])[index].max(0)
    return reach.but(
        np.moveaxis(low, 0, axis),
        np.moveaxis(high, 0, axis),
        cut=reach.cut and size == 1,
        **_at_stride(reach, axis, Fraction(stride, base_dilation)),
    )


def _at_stride(reach, axis, stride):
    """The fields `steps` and `scale` where every `stride`th element is taken."""
    step = reach.steps[axis]
    if step is not None:
        step *= stride
    return {
        "steps": _replaced(reach.steps, axis, step),
        "scale": reach.scale if step == 0 else reach.scale * stride,
    }


def _extended(reach, axis, length, before, after):
    """Pixels along `axis`, which comes first, with as many more on either side."""
    low, high = _along(reach, axis, length)
    if before == after == 0:
        return low, high
    step = reach.steps[axis]
    if step is None:
        raise NoRuleError("around a map whose positions are not evenly spaced")
    if step == 0:  # Channels: behind the last one there is nothing to see.
        ends = [np.full((n, *low.shape[1:]), math.inf) for n in (before, after)]
        return (
            np.concatenate([ends[0], low, ends[1]]),
            np.concatenate([-ends[0], high, -ends[1]]),
        )
    period = _period(low, high, step)
    position = np.arange(-before, length + after)
    source = position.clip(0, length - 1)
    source[:before] = position[:before] % period
    behind = position[before + length :] - length
    source[before + length :] = length - period + behind % period
    shift = _pixels(position - source, step).reshape(-1, *[1] * (low.ndim - 1))
    return low[source] + shift, high[source] + shift


def _along(reach, axis, length):
    """`low` and `high` with `axis` first and of its full length."""
    pair = []
    for pixels in (reach.low, reach.high):
        pixels = np.moveaxis(pixels, axis, 0)
        pair.append(np.broadcast_to(pixels, (length, *pixels.shape[1:])))
    return pair


def _pixels(positions, step):
    return positions * step.numerator / step.denominator


def _period(low, high, step):
    """Positions after which the pattern repeats, moved on; 1 on most maps."""
    for period in range(1, len(low)):
        shift = _pixels(period, step)
        if all(np.array_equal(p[period:], p[:-period] + shift) for p in (low, high)):
            return period
    return len(low)


def _replaced(steps, axis, step):
    return (*steps[:axis], step, *steps[axis + 1 :])


def slice_axis(
    reach: Reach, axis: int, length: int, start: int, limit: int, stride: int = 1
) -> Reach:
    """What is left of an axis from `start` to before `limit`."""
    step = reach.steps[axis]
    last = start + (limit - start - 1) // stride * stride
    is_piece = start >= stride or length - last > stride
    fields = _at_stride(reach, axis, stride)
    fields["cut"] = reach.cut or (is_piece and step != 0)
    if reach.low.shape[axis] == 1 < length:
        return reach.but(reach.low, reach.high, **fields)
    index = np.arange(start, limit, stride)
    return reach.but(
        reach.low.take(index, axis), reach.high.take(index, axis), **fields
    )


def reverse(reach: Reach, axes: Sequence[int]) -> Reach:
    """The other way round along some axes."""
    steps = tuple(
        -s if s is not None and axis in axes else s
        for axis, s in enumerate(reach.steps)
    )
    low, high = np.flip(reach.low, tuple(axes)), np.flip(reach.high, tuple(axes))
    return reach.but(low, high, steps=steps)


def transpose(reach: Reach, permutation: Sequence[int]) -> Reach:
    """The axes in another order."""
    return reach.but(
        reach.low.transpose(permutation),
        reach.high.transpose(permutation),
        steps=tuple(reach.steps[axis] for axis in permutation),
    )


def cumulate(reach: Reach, axis: int, *, backward: bool) -> Reach:
    """What a running sum sees: all that came before, or after."""
    if reach.steps[axis] == 0:
        return reach.but(
            reach.low.min(axis=axis, keepdims=True),
            reach.high.max(axis=axis, keepdims=True),
        )
    if backward:
        return reach.but(reach.low, np.full_like(reach.high, math.inf))
    return reach.but(np.full_like(reach.low, -math.inf), reach.high)


def broadcast(
    reach: Reach, shape: Shape, dimensions: Sequence[int], new_shape: Shape
) -> Reach:
    """Repeated along axes of length 1 and along new ones.

    Args:
      reach: of the operand.
      shape: the operand's.
      dimensions: for each axis of the operand the one of the result.
      new_shape: the result's.
    """
    steps: list[Step] = [Fraction(0)] * len(new_shape)
    lengths = [1] * len(new_shape)
    for axis, new in enumerate(dimensions):
        lengths[new] = reach.low.shape[axis]
        if shape[axis] == new_shape[new]:
            steps[new] = reach.steps[axis]
    return reach.but(
        reach.low.reshape(lengths), reach.high.reshape(lengths), steps=tuple(steps)
    )


def reshape(reach: Reach, shape: Shape, new_shape: Shape) -> Reach:
    """The same elements in another shape."""
    full, lengths = [1] * len(shape), [1] * len(new_shape)
    steps: list[Step] = [Fraction(0)] * len(new_shape)
    for old, new in _groups(shape, new_shape):
        step = _outer_step(reach, old, shape)
        changes = any(reach.low.shape[axis] > 1 for axis in old)
        for axis in reversed(new):
            steps[axis] = step
            step = None if step is None else step * new_shape[axis]
            lengths[axis] = new_shape[axis] if changes else 1
        for axis in old:
            full[axis] = shape[axis] if changes else 1
    return reach.but(
        np.broadcast_to(reach.low, full).reshape(lengths),
        np.broadcast_to(reach.high, full).reshape(lengths),
        steps=tuple(steps),
    )


def _groups(shape, new_shape):
    """Axes that become others together, those of length 1 left out."""
    old = [axis for axis, n in enumerate(shape) if n > 1]
    new = [axis for axis, n in enumerate(new_shape) if n > 1]
    while old:
        i = j = 1
        while (sizes := _sizes(shape, old[:i], new_shape, new[:j]))[0] != sizes[1]:
            i, j = (i + 1, j) if sizes[0] < sizes[1] else (i, j + 1)
        yield old[:i], new[:j]
        old, new = old[i:], new[j:]


def _sizes(shape, old, new_shape, new):
    return math.prod(shape[a] for a in old), math.prod(new_shape[a] for a in new)


def _outer_step(reach, axes, shape):
    """Pixels from one element to the next of axes that are merged, if it is even."""
    outer, *inner = axes
    if any(reach.low.shape[a] > 1 for a in inner):
        return None
    step = reach.steps[outer]
    return None if step is None else step / math.prod(shape[a] for a in inner)


def concatenate(
    reaches: Sequence[Reach | None],
    axis: int,
    shapes: Sequence[Shape],
    *,
    ignore_global: bool,
) -> Reach:
    """What arrays one behind the other see; None is one that sees nothing.

    Along an axis that walks over the image, what shows only pixels of the longest piece
    once more, or nothing, is a border around it, as reflected edges and zeros are.

    Args:
      reaches: of the pieces.
      axis: the axis.
      shapes: of the pieces.
      ignore_global: as for `union`.
    """
    seeing = [reach for reach in reaches if reach is not None]
    across = [1 if i == axis else n for i, n in enumerate(shapes[0])]
    if ignore_global:
        seeing = _moving(seeing, across)
    # Along the other axes the pieces must move together, as operands must.
    steps, apart = _common_steps(seeing, across)
    lengths = [shape[axis] for shape in shapes]
    pieces = [reach if reach in seeing else None for reach in reaches]
    joined = _bordered(pieces, axis, lengths)
    if joined is None:
        lows, highs = _full_pieces(pieces, axis, lengths)
        low, high = np.concatenate(lows, axis), np.concatenate(highs, axis)
        step = Fraction(0)
        others = any(s for i, s in enumerate(steps) if i != axis)
        if any(r.steps[axis] != 0 for r in seeing) or (
            max(lengths) == 1 and not others
        ):
            step = _even_step(low, high, axis)
        scale = max(reach.scale for reach in seeing)
        if step != 0:
            scale = _mean_step(low, axis, scale)
        steps = _replaced(steps, axis, step)
        joined = seeing[0].but(low, high, steps=steps, scale=scale)
    joined = joined.but(
        joined.low,
        joined.high,
        cut=all(reach.cut for reach in seeing) and joined.steps[axis] == 0,
        deformed=any(reach.deformed for reach in seeing),
    )
    return everywhere(joined) if apart else joined


def _bordered(pieces, axis, lengths):
    """The longest piece with a border around it, or None if the others are not that."""
    main = max(range(len(pieces)), key=lambda i: (pieces[i] is not None, lengths[i]))
    reach = pieces[main]
    if reach.steps[axis] is None:
        return None
    for other in pieces:
        if other is not None and (
            other.low.min() < reach.low.min() or other.high.max() > reach.high.max()
        ):
            return None
    if reach.low.shape[axis] == 1 and reach.steps[axis] == 0:
        same = [p for p in pieces if p is not None and p is not reach]
        return reach if all(_equal(p, reach) for p in same) else None
    if reach.steps[axis] == 0:
        return None
    padding = (sum(lengths[:main]), sum(lengths[main + 1 :]))
    return window(reach, axis, lengths[main], size=1, padding=padding)


def _equal(reach, other):
    return np.array_equal(reach.low, other.low) and np.array_equal(
        reach.high, other.high
    )


def _full_pieces(pieces, axis, lengths):
    """`low` and `high` of all pieces, of one shape across `axis`."""
    across = np.broadcast_shapes(
        *(np.take(p.low, [0], axis).shape for p in pieces if p is not None)
    )
    lows, highs = [], []
    for piece, length in zip(pieces, lengths, strict=True):
        shape = [length if i == axis else n for i, n in enumerate(across)]
        low, high = (math.inf, -math.inf) if piece is None else (piece.low, piece.high)
        lows.append(np.broadcast_to(low, shape))
        highs.append(np.broadcast_to(high, shape))
    return lows, highs


def _even_step(low, high, axis):
    """The distance between neighbours, or None if there is not one."""
    if low.shape[axis] < 3 or not np.isfinite([low.min(), high.max()]).all():
        return None
    low, high = np.diff(low, axis=axis), np.diff(high, axis=axis)
    first = low.flat[0]
    return Fraction(first) if np.all(low == first) and np.all(high == first) else None


def _mean_step(low, axis, default):
    ends = low.take(0, axis).min(), low.take(-1, axis).min()
    if not np.isfinite(ends).all() or low.shape[axis] == 1:
        return default
    return Fraction(ends[1] - ends[0]) / (low.shape[axis] - 1)


def settle(reach: Reach, axis: int, step: Fraction) -> Reach:
    """Finds the even pattern of an axis that was resized or gathered.

    A pattern that repeats with `step` in the middle goes on to the border, where a
    resizing has fewer pixels to look at.

    Args:
      reach: whose step along `axis` is not known.
      axis: the axis.
      step: the pixels from one element to the next, on average.

    Returns:
      The same with that step, or with None if there is no pattern.
    """
    length = reach.low.shape[axis]
    low, high = _along(reach, axis, length)
    for period in range(1, length // 4 + 1):
        middle = slice(period, length - period)
        inner = reach.but(
            np.moveaxis(low[middle], 0, axis),
            np.moveaxis(high[middle], 0, axis),
            steps=_replaced(reach.steps, axis, step),
        )
        if _period(low[middle], high[middle], step) != period:
            continue
        grown = window(
            inner, axis, length - 2 * period, size=1, padding=(period, period)
        )
        if np.all(grown.low <= reach.low) and np.all(grown.high >= reach.high):
            return grown
    return reach.but(reach.low, reach.high, steps=_replaced(reach.steps, axis, None))
