"""Walks a traced program and writes each of its operations to an ONNX graph."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]

from cnn_flax.analysis.jaxpr import called, default_branch, scan_counts
from cnn_flax.export.errors import ExportError
from cnn_flax.export.onnx_writer import elementwise, products, shapes, windows
from cnn_flax.export.onnx_writer.graph import Graph, Value

__all__ = ["write_program"]

Rule = Callable[[Graph, Any, list[Value]], list[Value]]

_RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **products.RULES,
    **shapes.RULES,
    **windows.RULES,
}
_MOST_STEPS = 256  # Of a loop that is written out.
_MOST_GROWTH = 2**16  # Elements of a constant that is computed here.


def write_program(
    graph: Graph, program: ClosedJaxpr, inputs: Sequence[Value]
) -> list[Value]:
    """Writes a program to a graph; returns its results.

    Operations on constants alone are computed, not written. A platform-dependent
    operation is written as its default branch, and a loop of a known number of steps
    step by step.

    Raises:
      ExportError: if there is no rule for an operation.
    """
    jaxpr = program.jaxpr
    known: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    for variable, array in zip(jaxpr.constvars, program.consts, strict=True):
        known[variable] = graph.constant(array)

    def read(atom: Any) -> Value:
        return (
            graph.constant(atom.val) if isinstance(atom, core.Literal) else known[atom]
        )

    for equation in jaxpr.eqns:
        results = _write(graph, equation, [read(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _write(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    name = equation.primitive.name
    if name == "platform_index":  # What a `cond` with a default branch reads.
        return [graph.constant(np.int32(0))]
    branch = default_branch(equation)
    if branch is not None:
        return write_program(graph, branch, inputs[1:])
    inner = called(equation)
    if inner is not None:
        return write_program(graph, inner, inputs)
    if name == "scan":
        return _scan(graph, equation, inputs)
    if _is_known(equation, inputs):
        return [graph.constant(x) for x in _computed(equation, inputs)]
    if name not in _RULES:
        raise ExportError(f"ONNX: there is no rule for JAX's operation {name!r}.")
    return _RULES[name](graph, equation, inputs)


def _is_known(equation: Any, inputs: list[Value]) -> bool:
    """Whether an operation can be computed here, and makes no large constant."""
    sizes = [size for x in equation.outvars for size in x.aval.shape]
    is_symbolic = not all(isinstance(size, int) for size in sizes)
    if is_symbolic or equation.primitive.name == "dim_as_value":
        return False
    arrays = [x.constant for x in inputs if x.constant is not None]
    most = max([_MOST_GROWTH, *(x.size for x in arrays)])
    return len(arrays) == len(inputs) and all(
        x.aval.size <= most for x in equation.outvars
    )


def _computed(equation: Any, inputs: list[Value]) -> list[Any]:
    with jax.ensure_compile_time_eval():
        results = equation.primitive.bind(
            *(x.constant for x in inputs), **equation.params
        )
    many = equation.primitive.multiple_results
    return [np.asarray(x) for x in (results if many else [results])]


def _scan(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    """A loop over the first axis of arrays, step by step."""
    steps = equation.params["length"]
    constants, carried = scan_counts(equation)
    if steps > _MOST_STEPS or len(equation.outvars) > carried:
        raise ExportError(
            f"ONNX: a loop of {steps} steps with results of each is not supported."
        )
    body = equation.params["jaxpr"]
    if not hasattr(body, "consts"):
        body = ClosedJaxpr(body, ())
    carry = inputs[constants : constants + carried]
    order = range(steps)
    for step in reversed(order) if equation.params["reverse"] else order:
        parts = [shapes.element(graph, x, step) for x in inputs[constants + carried :]]
        carry = write_program(graph, body, [*inputs[:constants], *carry, *parts])
    return carry
