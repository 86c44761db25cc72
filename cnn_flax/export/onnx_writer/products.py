"""Matrix products and reductions."""

import string
from typing import Any

from cnn_flax.export.onnx_writer.elementwise import common_layout
from cnn_flax.export.onnx_writer.graph import FIRST, LAST, Graph, Value, axis_in

__all__ = ["RULES", "layout_without"]


def _dot(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    x, y = inputs
    (contract_x, contract_y), (batch_x, _) = equation.params["dimension_numbers"]
    out = equation.outvars[0].aval
    of_matrix = (
        len(y.shape) == 2
        and not batch_x
        and tuple(contract_x) == (len(x.shape) - 1,)
        and tuple(contract_y) == (0,)
    )
    if of_matrix and len(x.shape) == 4 and y.constant is not None:
        # Over the channels of maps: a convolution of one pixel.
        kernel = graph.initializer(y.constant.T[:, :, None, None])
        name = graph.node("Conv", graph.name(x, FIRST), kernel, kernel_shape=(1, 1))
        return [graph.value(name, out, FIRST)]
    if of_matrix:
        name = graph.node("MatMul", graph.name(x), graph.name(y))
        return [graph.value(name, out)]
    formula = _formula(x, y, equation.params["dimension_numbers"])
    name = graph.node("Einsum", graph.name(x), graph.name(y), equation=formula)
    return [graph.value(name, out)]


def _formula(x: Value, y: Value, numbers: Any) -> str:
    """A product in Einstein's notation: batch axes first, then those of x, then y."""
    (contract_x, contract_y), (batch_x, batch_y) = numbers
    letters = iter(string.ascii_lowercase)
    of_x = [next(letters) for _ in x.shape]
    of_y = [next(letters) for _ in y.shape]
    for a, b in zip((*contract_x, *batch_x), (*contract_y, *batch_y), strict=True):
        of_y[b] = of_x[a]
    shared = {*contract_x, *batch_x}, {*contract_y, *batch_y}
    result = [of_x[a] for a in batch_x]
    result += [letter for i, letter in enumerate(of_x) if i not in shared[0]]
    result += [letter for i, letter in enumerate(of_y) if i not in shared[1]]
    return f"{''.join(of_x)},{''.join(of_y)}->{''.join(result)}"


def layout_without(x: Value, axes: tuple[int, ...]):
    """A layout in which the axes other than the given ones have the program's order."""
    layout = common_layout([x])
    rest = [axis_in(layout, i, len(x.shape)) for i in range(len(x.shape))]
    kept = [place for i, place in enumerate(rest) if i not in axes]
    return layout if kept == sorted(kept) else LAST


def _reduction(operator: str):
    def rule(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
        (x,) = inputs
        axes = tuple(equation.params["axes"])
        layout = layout_without(x, axes)
        places = sorted(axis_in(layout, axis, len(x.shape)) for axis in axes)
        name = graph.node(
            operator, graph.name(x, layout), graph.integers(places), keepdims=0
        )
        return [graph.value(name, equation.outvars[0].aval)]

    return rule


RULES = {
    "dot_general": _dot,
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_sum": _reduction("ReduceSum"),
}
