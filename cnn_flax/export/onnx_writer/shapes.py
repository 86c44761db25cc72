"""Operations that move elements: shapes, slices, joins, padding, indexing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn_flax.export.errors import ExportError
from cnn_flax.export.onnx_writer.elementwise import common_layout
from cnn_flax.export.onnx_writer.graph import LAST, Graph, Value, axis_in, tensor_type
from cnn_flax.export.onnx_writer.products import layout_without

__all__ = ["RULES", "element"]


def element(graph: Graph, x: Value, index: int) -> Value:
    """`x[index]`, of the first axis."""
    if x.constant is not None:
        return graph.constant(x.constant[index])
    name = graph.node(
        "Gather", graph.name(x), graph.name(_scalar(graph, index)), axis=0
    )
    return Value(x.shape[1:], x.dtype, names={LAST: name})


def _scalar(graph: Graph, number: int) -> Value:
    return graph.constant(np.int64(number))


def _known(size: Any) -> bool:
    return isinstance(size, int | np.integer)


def _reshape(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    out = equation.outvars[0].aval
    # Pixels that are one per map are in the same order in both layouts.
    is_vector = len(x.shape) == 4 and tuple(x.shape[1:3]) == (1, 1)
    layout = common_layout([x]) if is_vector else LAST
    return [_reshaped(graph, graph.name(x, layout), out)]


def _reshaped(graph: Graph, name: str, out: Any) -> Value:
    free = [i for i, size in enumerate(out.shape) if not _known(size)]
    if len(free) > 1:
        shape = graph.shape(out.shape)
    else:
        shape = graph.integers([size if _known(size) else -1 for size in out.shape])
    return graph.value(graph.node("Reshape", name, shape), out)


def _squeeze(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    axes = tuple(equation.params["dimensions"])
    layout = layout_without(x, axes)
    places = sorted(axis_in(layout, axis, len(x.shape)) for axis in axes)
    name = graph.node("Squeeze", graph.name(x, layout), graph.integers(places))
    return [graph.value(name, equation.outvars[0].aval)]


def _broadcast(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    x, *_ = inputs
    out = equation.outvars[0].aval
    axes = [int(axis) for axis in equation.params["broadcast_dimensions"]]
    missing = [axis for axis in range(len(out.shape)) if axis not in axes]
    name = graph.name(x)
    if missing:
        name = graph.node("Unsqueeze", name, graph.integers(missing))
    whole = [1] * len(out.shape)
    for axis, size in zip(axes, x.shape, strict=True):
        whole[axis] = size
    if any(str(a) != str(b) for a, b in zip(whole, out.shape, strict=True)):
        name = graph.node("Expand", name, graph.shape(out.shape))
    return [graph.value(name, out)]


def _transpose(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    order = tuple(int(axis) for axis in equation.params["permutation"])
    name = graph.node("Transpose", graph.name(inputs[0]), perm=order)
    return [graph.value(name, equation.outvars[0].aval)]


def _concatenate(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    layout = common_layout(inputs)
    axis = axis_in(layout, equation.params["dimension"], len(inputs[0].shape))
    names = [graph.name(x, layout) for x in inputs]
    name = graph.node("Concat", *names, axis=axis)
    return [graph.value(name, equation.outvars[0].aval, layout)]


def _stack(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    axis = int(equation.params["axis"])
    at = graph.integers([axis])
    names = [graph.node("Unsqueeze", graph.name(x), at) for x in inputs]
    name = graph.node("Concat", *names, axis=axis)
    return [graph.value(name, equation.outvars[0].aval)]


def _unstack(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    axis = int(equation.params["axis"])
    whole = graph.name(inputs[0])
    return [
        graph.value(
            graph.node("Gather", whole, graph.name(_scalar(graph, i)), axis=axis),
            out.aval,
        )
        for i, out in enumerate(equation.outvars)
    ]


def _split(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    layout = common_layout([x])
    axis = axis_in(layout, equation.params["axis"], len(x.shape))
    outs = [out.aval for out in equation.outvars]
    if len(outs) == 1:
        return [x]
    sizes = graph.integers(equation.params["sizes"])
    whole = graph.name(x, layout)
    names = graph.nodes("Split", whole, sizes, outputs=len(outs), axis=axis)
    return [graph.value(n, out, layout) for n, out in zip(names, outs, strict=True)]


def _slice(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    parameters = equation.params
    strides = parameters["strides"] or (1,) * len(x.shape)
    limits = zip(
        parameters["start_indices"],
        parameters["limit_indices"],
        strides,
        x.shape,
        strict=True,
    )
    cut = [
        (axis, start, end, step)
        for axis, (start, end, step, size) in enumerate(limits)
        if (str(start), str(end), step) != ("0", str(size), 1)
    ]
    return [_sliced(graph, equation, x, cut)]


def _sliced(graph: Graph, equation: Any, x: Value, cut: Sequence[Any]) -> Value:
    if not cut:
        return x
    layout = common_layout([x])
    axes, starts, ends, steps = zip(*cut, strict=True)
    name = graph.node(
        "Slice",
        graph.name(x, layout),
        graph.shape(starts),
        graph.shape(ends),
        graph.integers([axis_in(layout, axis, len(x.shape)) for axis in axes]),
        graph.integers(steps),
    )
    return graph.value(name, equation.outvars[0].aval, layout)


def _pad(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    x, value = inputs
    around = equation.params["padding_config"]
    if any(interior for *_, interior in around):
        raise ExportError("ONNX: padding between the elements of an array.")
    layout = common_layout([x])
    places = [axis_in(layout, i, len(x.shape)) for i in range(len(x.shape))]
    pads = [
        pair[i] for i in (0, 1) for _, pair in sorted(zip(places, around, strict=True))
    ]
    name = graph.node(
        "Pad", graph.name(x, layout), graph.integers(pads), graph.name(value)
    )
    return [graph.value(name, equation.outvars[0].aval, layout)]


def _iota(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    out, axis = equation.outvars[0].aval, equation.params["dimension"]
    size = graph.node("Squeeze", graph.dimension(out.shape[axis]))
    first, step = (graph.name(_scalar(graph, i)) for i in (0, 1))
    count = graph.node("Range", first, size, step)
    name = graph.node("Cast", count, to=tensor_type(out.dtype))
    others = [i for i in range(len(out.shape)) if i != axis]
    if others:
        name = graph.node("Unsqueeze", name, graph.integers(others))
        name = graph.node("Expand", name, graph.shape(out.shape))
    return [graph.value(name, out)]


def _dimension(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    out = equation.outvars[0].aval
    size = graph.node("Squeeze", graph.dimension(equation.params["dim"]))
    return [graph.value(graph.node("Cast", size, to=tensor_type(out.dtype)), out)]


def _gather(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    """Rows of arrays: `x[index]` with a known index, and `x[n, index[n]]`."""
    x, index = inputs
    numbers = equation.params["dimension_numbers"]
    sizes = equation.params["slice_sizes"]
    axes = tuple(map(int, numbers.start_index_map))
    batch = tuple(map(int, numbers.operand_batching_dims))
    collapsed = tuple(map(int, numbers.collapsed_slice_dims))
    rest = [i for i in range(len(x.shape)) if i not in (*axes, *batch)]
    whole = all(str(sizes[i]) == str(x.shape[i]) for i in rest)
    indexed = len(index.shape) - 1
    rows = tuple(int(i) for i in numbers.offset_dims)
    is_plain = (
        whole
        and len(axes) == 1
        and collapsed == axes
        and sizes[axes[0]] == 1
        and rows == tuple(range(indexed, indexed + len(rest)))
        and tuple(map(int, numbers.start_indices_batching_dims)) == batch
        and (*batch, *axes) == tuple(range(len(batch) + 1))
    )
    if not is_plain:
        raise ExportError("ONNX: indexing other than of an array's rows.")
    last = graph.constant(np.asarray(x.shape[axes[0]] - 1, index.dtype))
    zero = graph.constant(np.zeros((), index.dtype))
    name = graph.node("Max", graph.name(index), graph.name(zero))
    name = graph.node("Min", name, graph.name(last))
    name = graph.node("Cast", name, to=tensor_type("int64"))
    name = graph.node("GatherND", graph.name(x), name, batch_dims=len(batch))
    return [graph.value(name, equation.outvars[0].aval)]


RULES = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "dim_as_value": _dimension,
    "expand_dims": _reshape,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "transpose": _transpose,
    "unstack": _unstack,
}
