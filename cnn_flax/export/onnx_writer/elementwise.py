"""Operations that work element by element, in whichever layout their arrays have."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax

from cnn_flax.export.errors import ExportError
from cnn_flax.export.onnx_writer.graph import (
    FIRST,
    LAST,
    Graph,
    Layout,
    Value,
    tensor_type,
)

__all__ = ["RULES", "common_layout"]


def common_layout(inputs: list[Value]) -> Layout:
    """The layout in which the fewest of an operation's inputs are transposed."""
    held = [x for x in inputs if x.constant is None and len(x.shape) == 4]
    return FIRST if any(x.is_first for x in held) else LAST


def _write(
    graph: Graph,
    equation: Any,
    inputs: list[Value],
    body: Callable[..., str],
) -> list[Value]:
    layout = common_layout(inputs)
    (out,) = equation.outvars
    name = body(*(graph.name(x, layout) for x in inputs))
    return [graph.value(name, out.aval, layout)]


def _plain(operator: str):
    """The rule of a primitive that ONNX has under a name of its own."""

    def rule(graph, equation, inputs):
        return _write(
            graph, equation, inputs, lambda *names: graph.node(operator, *names)
        )

    return rule


def _then(*operators: str):
    """The rule of a primitive that ONNX has as a chain of operators."""

    def rule(graph, equation, inputs):
        def body(*names):
            for operator in operators:
                names = (graph.node(operator, *names),)
            return names[0]

        return _write(graph, equation, inputs, body)

    return rule


def _max(graph, equation, inputs):
    x, y = inputs
    if y.constant is not None and y.dtype == np.float32 and not y.constant.any():
        if x.shape == equation.outvars[0].aval.shape:
            return _plain("Relu")(graph, equation, [x])
    return _plain("Max")(graph, equation, inputs)


def _integer_pow(graph, equation, inputs):
    (x,) = inputs
    exponent = np.asarray(equation.params["y"], x.dtype)
    if exponent == 2:
        return _plain("Mul")(graph, equation, [x, x])
    return _plain("Pow")(graph, equation, [x, graph.constant(exponent)])


def _square(graph, equation, inputs):
    return _plain("Mul")(graph, equation, inputs * 2)


def _erfc(graph, equation, inputs):
    (x,) = inputs
    return _write(
        graph,
        equation,
        [graph.constant(np.ones((), x.dtype)), x],
        lambda one, name: graph.node("Sub", one, graph.node("Erf", name)),
    )


def _convert(graph, equation, inputs):
    to = tensor_type(equation.params["new_dtype"])
    return _write(graph, equation, inputs, lambda name: graph.node("Cast", name, to=to))


def _select(graph, equation, inputs):
    which, *cases = inputs
    if len(cases) != 2 or which.dtype != np.bool_:
        raise ExportError("ONNX: a choice between more than two arrays.")
    return _plain("Where")(graph, equation, [which, cases[1], cases[0]])


def _clamp(graph, equation, inputs):
    low, x, high = inputs
    return _write(
        graph,
        equation,
        [low, x, high],
        lambda low, x, high: graph.node("Min", graph.node("Max", x, low), high),
    )


def _round(graph, equation, inputs):
    if equation.params["rounding_method"] != lax.RoundingMethod.TO_NEAREST_EVEN:
        raise ExportError("ONNX rounds halves to even alone.")
    return _plain("Round")(graph, equation, inputs)


def _logical(of_bool: str, of_integers: str):
    def rule(graph, equation, inputs):
        operator = of_bool if inputs[0].dtype == np.bool_ else of_integers
        return _plain(operator)(graph, equation, inputs)

    return rule


def _same(graph, equation, inputs):
    return inputs


RULES = {
    "abs": _plain("Abs"),
    "add": _plain("Add"),
    "add_any": _plain("Add"),
    "and": _logical("And", "BitwiseAnd"),
    "clamp": _clamp,
    "convert_element_type": _convert,
    "copy": _same,
    "copy_p": _same,
    "div": _plain("Div"),
    "eq": _plain("Equal"),
    "erf": _plain("Erf"),
    "erfc": _erfc,
    "exp": _plain("Exp"),
    "floor": _plain("Floor"),
    "ge": _plain("GreaterOrEqual"),
    "gt": _plain("Greater"),
    "integer_pow": _integer_pow,
    "le": _plain("LessOrEqual"),
    "log": _plain("Log"),
    "logistic": _plain("Sigmoid"),
    "lt": _plain("Less"),
    "max": _max,
    "min": _plain("Min"),
    "mul": _plain("Mul"),
    "ne": _then("Equal", "Not"),
    "neg": _plain("Neg"),
    "not": _logical("Not", "BitwiseNot"),
    "or": _logical("Or", "BitwiseOr"),
    "pow": _plain("Pow"),
    "round": _round,
    "rsqrt": _then("Sqrt", "Reciprocal"),
    "select_n": _select,
    "sign": _plain("Sign"),
    "sqrt": _plain("Sqrt"),
    "square": _square,
    "stop_gradient": _same,
    "sub": _plain("Sub"),
    "tanh": _plain("Tanh"),
    "xor": _logical("Xor", "BitwiseXor"),
}
