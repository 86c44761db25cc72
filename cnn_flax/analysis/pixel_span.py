"""Spans of pixels that the elements of an array see along one axis of the image.

An element sees the pixels from `low` to `high`. Spans are not clipped at the image's
border: padding counts as if the image continued, so that along an axis with positions,
position p sees `p * step + [a, b]`.
"""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

__all__ = [
    "NoRuleError",
    "PixelSpan",
    "broadcast",
    "concatenate",
    "contract",
    "cumulate",
    "everywhere",
    "of_image",
    "reduce",
    "reshape",
    "reverse",
    "regularise",
    "slice_axis",
    "transpose",
    "union",
    "window",
]

Shape = Sequence[int]
Step = Fraction | None


class NoRuleError(Exception):
    """There is no rule for an operation; the message is a clause describing it."""


@dataclasses.dataclass(frozen=True, eq=False)
class PixelSpan:
    """What each element of an array sees along one axis of the image.

    Attributes:
      low: first pixel, float, of the array's rank. Axes along which it is constant have
        length 1. Infinity if nothing is seen, minus infinity if everything is.
      high: last pixel, of the same shape. Minus infinity if nothing is seen, infinity
        if everything is.
      steps: per axis, pixels from one element to the next: 0 along channels, None if it
        varies.
      scale: pixels between positions of the map that the array was computed from.
      cut: whether it is part of a map, cut out by a slice.
      deformed: whether a deformable convolution is on the path, so that the span
        depends on the data.
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
    def has_positions(self) -> bool:
        """Whether some axis runs over the image in even steps."""
        return any(self.steps)

    def replace(self, low: np.ndarray, high: np.ndarray, **fields) -> "PixelSpan":
        """Returns a copy with other pixels, and other `fields`."""
        return dataclasses.replace(self, low=low, high=high, **fields)


def of_image(rank: int, axis: int, size: int) -> PixelSpan:
    """The span of the pixels of an image, along one of its axes."""
    pixels = np.arange(size, dtype=float).reshape(
        [size if i == axis else 1 for i in range(rank)]
    )
    steps = tuple(Fraction(int(i == axis)) for i in range(rank))
    return PixelSpan(pixels, pixels, steps)


def everywhere(span: PixelSpan) -> PixelSpan:
    """Makes all elements see the whole image."""
    return span.replace(
        np.full_like(span.low, -math.inf), np.full_like(span.high, math.inf)
    )


def union(
    spans: Sequence[PixelSpan], shape: Shape, *, ignore_global: bool
) -> PixelSpan:
    """The span of an elementwise operation.

    Operands with different steps have no common form `p * step + [a, b]`: on an
    unbounded map they drift apart without limit, so that the result sees everything.

    Args:
      spans: of the operands, all of the result's rank.
      shape: of the result.
      ignore_global: whether to leave out operands without positions, such as a gate
        from a pooled vector, if others have positions.
    """
    if ignore_global:
        spans = _without_global(spans, shape)
    steps, diverges = _common_steps(spans, shape)
    low, high = spans[0].low, spans[0].high
    for span in spans[1:]:
        low, high = np.minimum(low, span.low), np.maximum(high, span.high)
    joined = PixelSpan(
        low,
        high,
        steps,
        max(span.scale for span in spans),
        all(span.cut for span in spans),
        any(span.deformed for span in spans),
    )
    return everywhere(joined) if diverges else joined


def _without_global(spans, shape):
    """Leaves out spans that see everything, or the same from all positions."""
    local = [span for span in spans if not span.is_global] or list(spans)
    for axis, n in enumerate(shape):
        if n > 1 and any(span.steps[axis] for span in local):
            local = [span for span in local if span.steps[axis] != 0]
    return local


def _common_steps(spans, shape):
    """The common step per axis, and whether the operands' steps differ."""
    local = [span for span in spans if not span.is_global] or spans
    steps, diverges = [], False
    for axis, n in enumerate(shape):
        found = {span.steps[axis] for span in local}
        if None in found:
            steps.append(None)
            continue
        diverges |= n > 1 and len(found) > 1
        steps.append(max(found))
    return tuple(steps), diverges


def reduce(span: PixelSpan, axes: Sequence[int]) -> PixelSpan:
    """The span of a sum or maximum over some axes, which are removed.

    Over all positions of a map it is a global pooling, which sees everything, whatever
    the image's size. Over a part that was cut out it is a window.
    """
    reduced = [span.steps[axis] for axis in axes]
    remaining = tuple(s for axis, s in enumerate(span.steps) if axis not in axes)
    pooled = span.replace(
        span.low.min(axis=tuple(axes)),
        span.high.max(axis=tuple(axes)),
        steps=remaining,
    )
    is_global = any(s != 0 for s in reduced) and not any(remaining) and not span.cut
    return everywhere(pooled) if is_global else pooled


def contract(span: PixelSpan, axes: Sequence[int]) -> PixelSpan:
    """The span of a product with weights that sums over some axes, which are removed.

    A dense layer on a flattened map is a convolution whose kernel has the map's size.
    """
    return span.replace(
        span.low.min(axis=tuple(axes)),
        span.high.max(axis=tuple(axes)),
        steps=tuple(s for axis, s in enumerate(span.steps) if axis not in axes),
    )


def window(
    span: PixelSpan,
    axis: int,
    length: int,
    *,
    size: int,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    base_dilation: int = 1,
    window_dilation: int = 1,
) -> PixelSpan:
    """The span of a window that slides along an axis.

    Args:
      span: of the operand.
      axis: the axis.
      length: elements of the operand along the axis.
      size: taps of the window.
      stride: elements from one window to the next, after `base_dilation`.
      padding: elements added before and after; negative values remove elements.
      base_dilation: distance between the operand's elements after inserting zeros.
      window_dilation: distance between taps.
    """
    if span.low.shape[axis] == 1 and span.steps[axis] == 0:
        return span
    padded = (length - 1) * base_dilation + 1 + sum(padding)
    count = max(0, (padded - (size - 1) * window_dilation - 1) // stride + 1)
    taps = np.arange(size)[:, None] * window_dilation - padding[0]
    index = np.arange(count) * stride + taps
    hit = index % base_dilation == 0
    index //= base_dilation
    before = max(0, -int(index[hit].min(initial=0)))
    after = max(0, int(index[hit].max(initial=0)) - length + 1)
    low, high = _extended(span, axis, length, before, after)
    index = np.where(hit, index + before, low.shape[0])
    nothing = np.full((1, *low.shape[1:]), math.inf)
    low = np.concatenate([low, nothing])[index].min(0)
    high = np.concatenate([high, -nothing])[index].max(0)
    return span.replace(
        np.moveaxis(low, 0, axis),
        np.moveaxis(high, 0, axis),
        cut=span.cut and size == 1,
        **_at_stride(span, axis, Fraction(stride, base_dilation)),
    )


def _at_stride(span, axis, stride):
    """The fields `steps` and `scale` after taking every `stride`th element."""
    step = span.steps[axis]
    if step is not None:
        step *= stride
    return {
        "steps": _replaced(span.steps, axis, step),
        "scale": span.scale if step == 0 else span.scale * stride,
    }


def _extended(span, axis, length, before, after):
    """`low` and `high` with `axis` first, extended by `before` and `after` elements."""
    low, high = _along(span, axis, length)
    if before == after == 0:
        return low, high
    step = span.steps[axis]
    if step is None:
        raise NoRuleError("which pads a map whose positions are not evenly spaced")
    if step == 0:  # Channels: padding sees nothing.
        ends = [np.full((n, *low.shape[1:]), math.inf) for n in (before, after)]
        return (
            np.concatenate([ends[0], low, ends[1]]),
            np.concatenate([-ends[0], high, -ends[1]]),
        )
    period = _period(low, high, step)
    position = np.arange(-before, length + after)
    source = position.clip(0, length - 1)
    source[:before] = position[:before] % period
    beyond = position[before + length :] - length
    source[before + length :] = length - period + beyond % period
    shift = _pixels(position - source, step).reshape(-1, *[1] * (low.ndim - 1))
    return low[source] + shift, high[source] + shift


def _along(span, axis, length):
    """`low` and `high` with `axis` first, broadcast to its full length."""
    pair = []
    for pixels in (span.low, span.high):
        pixels = np.moveaxis(pixels, axis, 0)
        pair.append(np.broadcast_to(pixels, (length, *pixels.shape[1:])))
    return pair


def _pixels(positions, step):
    return positions * step.numerator / step.denominator


def _period(low, high, step):
    """Positions after which the pattern repeats, shifted; 1 on most maps."""
    for period in range(1, len(low)):
        shift = _pixels(period, step)
        if all(np.array_equal(p[period:], p[:-period] + shift) for p in (low, high)):
            return period
    return len(low)


def _replaced(steps, axis, step):
    return (*steps[:axis], step, *steps[axis + 1 :])


def slice_axis(
    span: PixelSpan, axis: int, length: int, start: int, limit: int, stride: int = 1
) -> PixelSpan:
    """The span of a slice along an axis, from `start` to before `limit`."""
    step = span.steps[axis]
    last = start + (limit - start - 1) // stride * stride
    is_partial = start >= stride or length - last > stride
    fields = _at_stride(span, axis, stride)
    fields["cut"] = span.cut or (is_partial and step != 0)
    if span.low.shape[axis] == 1 < length:
        return span.replace(span.low, span.high, **fields)
    index = np.arange(start, limit, stride)
    return span.replace(
        span.low.take(index, axis), span.high.take(index, axis), **fields
    )


def reverse(span: PixelSpan, axes: Sequence[int]) -> PixelSpan:
    """Reverses some axes."""
    steps = tuple(
        -s if s is not None and axis in axes else s for axis, s in enumerate(span.steps)
    )
    low, high = np.flip(span.low, tuple(axes)), np.flip(span.high, tuple(axes))
    return span.replace(low, high, steps=steps)


def transpose(span: PixelSpan, permutation: Sequence[int]) -> PixelSpan:
    """Permutes the axes."""
    return span.replace(
        span.low.transpose(permutation),
        span.high.transpose(permutation),
        steps=tuple(span.steps[axis] for axis in permutation),
    )


def cumulate(span: PixelSpan, axis: int, *, backward: bool) -> PixelSpan:
    """The span of a cumulative sum: everything before, or after if `backward`."""
    if span.steps[axis] == 0:
        return span.replace(
            span.low.min(axis=axis, keepdims=True),
            span.high.max(axis=axis, keepdims=True),
        )
    if backward:
        return span.replace(span.low, np.full_like(span.high, math.inf))
    return span.replace(np.full_like(span.low, -math.inf), span.high)


def broadcast(
    span: PixelSpan, shape: Shape, dimensions: Sequence[int], new_shape: Shape
) -> PixelSpan:
    """Repeats along axes of length 1 and along new ones.

    Args:
      span: of the operand.
      shape: of the operand.
      dimensions: for each axis of the operand, that of the result.
      new_shape: of the result.
    """
    steps: list[Step] = [Fraction(0)] * len(new_shape)
    lengths = [1] * len(new_shape)
    for axis, new in enumerate(dimensions):
        lengths[new] = span.low.shape[axis]
        if shape[axis] == new_shape[new]:
            steps[new] = span.steps[axis]
    return span.replace(
        span.low.reshape(lengths), span.high.reshape(lengths), steps=tuple(steps)
    )


def reshape(span: PixelSpan, shape: Shape, new_shape: Shape) -> PixelSpan:
    """Reshapes the elements."""
    full, lengths = [1] * len(shape), [1] * len(new_shape)
    steps: list[Step] = [Fraction(0)] * len(new_shape)
    for old, new in _groups(shape, new_shape):
        step = _outer_step(span, old, shape)
        changes = any(span.low.shape[axis] > 1 for axis in old)
        for axis in reversed(new):
            steps[axis] = step
            step = None if step is None else step * new_shape[axis]
            lengths[axis] = new_shape[axis] if changes else 1
        for axis in old:
            full[axis] = shape[axis] if changes else 1
    return span.replace(
        np.broadcast_to(span.low, full).reshape(lengths),
        np.broadcast_to(span.high, full).reshape(lengths),
        steps=tuple(steps),
    )


def _groups(shape, new_shape):
    """Groups of old and new axes of equal size, without axes of length 1."""
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


def _outer_step(span, axes, shape):
    """Pixels from one element to the next of merged axes; None if it varies."""
    outer, *inner = axes
    if any(span.low.shape[a] > 1 for a in inner):
        return None
    step = span.steps[outer]
    return None if step is None else step / math.prod(shape[a] for a in inner)


def concatenate(
    spans: Sequence[PixelSpan | None],
    axis: int,
    shapes: Sequence[Shape],
    *,
    ignore_global: bool,
) -> PixelSpan:
    """The span of concatenated arrays; None stands for one that sees nothing.

    Along an axis with positions, pieces that repeat pixels of the longest piece, or see
    nothing, are padding around it, such as reflected edges and zeros.

    Args:
      spans: of the pieces.
      axis: the axis.
      shapes: of the pieces.
      ignore_global: same as for `union`.
    """
    seeing = [span for span in spans if span is not None]
    across = [1 if i == axis else n for i, n in enumerate(shapes[0])]
    if ignore_global:
        seeing = _without_global(seeing, across)
    # Along the other axes the pieces must have common steps, like operands.
    steps, diverges = _common_steps(seeing, across)
    lengths = [shape[axis] for shape in shapes]
    pieces = [span if span in seeing else None for span in spans]
    joined = _as_padding(pieces, axis, lengths)
    if joined is None:
        lows, highs = _full_pieces(pieces, axis, lengths)
        low, high = np.concatenate(lows, axis), np.concatenate(highs, axis)
        step = Fraction(0)
        others = any(s for i, s in enumerate(steps) if i != axis)
        if any(r.steps[axis] != 0 for r in seeing) or (
            max(lengths) == 1 and not others
        ):
            step = _even_step(low, high, axis)
        scale = max(span.scale for span in seeing)
        if step != 0:
            scale = _mean_step(low, axis, scale)
        steps = _replaced(steps, axis, step)
        joined = seeing[0].replace(low, high, steps=steps, scale=scale)
    joined = joined.replace(
        joined.low,
        joined.high,
        cut=all(span.cut for span in seeing) and joined.steps[axis] == 0,
        deformed=any(span.deformed for span in seeing),
    )
    return everywhere(joined) if diverges else joined


def _as_padding(pieces, axis, lengths):
    """The longest piece, padded; None if the other pieces are not its padding."""
    main = max(range(len(pieces)), key=lambda i: (pieces[i] is not None, lengths[i]))
    span = pieces[main]
    if span.steps[axis] is None:
        return None
    for other in pieces:
        if other is not None and (
            other.low.min() < span.low.min() or other.high.max() > span.high.max()
        ):
            return None
    if span.low.shape[axis] == 1 and span.steps[axis] == 0:
        same = [p for p in pieces if p is not None and p is not span]
        return span if all(_equal(p, span) for p in same) else None
    if span.steps[axis] == 0:
        return None
    padding = (sum(lengths[:main]), sum(lengths[main + 1 :]))
    return window(span, axis, lengths[main], size=1, padding=padding)


def _equal(span, other):
    return np.array_equal(span.low, other.low) and np.array_equal(span.high, other.high)


def _full_pieces(pieces, axis, lengths):
    """`low` and `high` of all pieces, broadcast to a common shape across `axis`."""
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
    """The distance between neighbours; None if it varies."""
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


def regularise(span: PixelSpan, axis: int, step: Fraction) -> PixelSpan:
    """Finds the regular pattern of an axis that was resized or gathered.

    A pattern that repeats with `step` in the interior is continued to the border, where
    resizing reads fewer pixels.

    Args:
      span: its step along `axis` is unknown.
      axis: the axis.
      step: the mean number of pixels from one element to the next.

    Returns:
      The span with that step, or with None if there is no pattern.
    """
    length = span.low.shape[axis]
    low, high = _along(span, axis, length)
    for period in range(1, length // 4 + 1):
        interior = slice(period, length - period)
        inner = span.replace(
            np.moveaxis(low[interior], 0, axis),
            np.moveaxis(high[interior], 0, axis),
            steps=_replaced(span.steps, axis, step),
        )
        if _period(low[interior], high[interior], step) != period:
            continue
        grown = window(
            inner, axis, length - 2 * period, size=1, padding=(period, period)
        )
        if np.all(grown.low <= span.low) and np.all(grown.high >= span.high):
            return grown
    return span.replace(span.low, span.high, steps=_replaced(span.steps, axis, None))
