"""Multiply-adds of a traced program: its convolutions and matrix products."""

import math
from collections import Counter
from typing import Any

from jax.extend import core

from cnn_flax.analysis.jaxpr import bodies, label_of

__all__ = ["multiply_adds", "of_equation"]


def multiply_adds(program: core.Jaxpr, label: str | None = None) -> Counter[str | None]:
    """Multiply-adds by the label of the module that they are of.

    Each tap of a kernel counts at each position of the output, in the padding too.

    Args:
      program: a traced program.
      label: the label of what is in no labelled module.

    Raises:
      NotImplementedError: if it cannot be told how often a product runs; names the
        operation that it is inside of.
    """
    total: Counter[str | None] = Counter()
    for equation in program.eqns:
        own = label_of(equation) or label
        total[own] += of_equation(equation)
        for body, times in bodies(equation):
            inner = multiply_adds(body, own)
            if times is None and inner.total():
                raise NotImplementedError(
                    f"There are products inside of {equation.primitive.name!r}, and it "
                    "cannot be told how often it runs them."
                )
            for name, count in inner.items():
                total[name] += count * (times or 0)
    return total


def of_equation(equation: core.JaxprEqn) -> int:
    """Multiply-adds of one operation: 0 unless it is a convolution or a product."""
    inputs: list[Any] = [variable.aval for variable in equation.invars]
    output: Any = equation.outvars[0].aval if equation.outvars else None
    if equation.primitive.name == "dot_general":
        (contracting, _), _ = equation.params["dimension_numbers"]
        return output.size * math.prod(inputs[0].shape[axis] for axis in contracting)
    if equation.primitive.name == "conv_general_dilated":
        image, kernel = inputs
        layout = equation.params["dimension_numbers"]
        positions = output.size // kernel.shape[layout.rhs_spec[0]]
        if math.prod(equation.params["lhs_dilation"]) > 1:
            # A transposed convolution does not multiply the zeros between its pixels.
            positions = image.size // image.shape[layout.lhs_spec[1]]
        return positions * kernel.size
    return 0
