"""Multiply-adds of a traced program's convolutions and matrix products."""

import math
from collections import Counter
from typing import Any

from jax.extend import core

from cnn_flax.analysis.jaxpr import bodies, label_of

__all__ = ["multiply_adds", "equation_multiply_adds"]


def multiply_adds(program: core.Jaxpr, label: str | None = None) -> Counter[str | None]:
    """Counts multiply-adds by the label of their module.

    Each tap of a kernel counts at each output position, including taps on padding.

    Args:
      program: a traced program.
      label: for operations outside labelled modules.

    Raises:
      NotImplementedError: if the number of times a product runs is unknown; the message
        names the enclosing operation.
    """
    total: Counter[str | None] = Counter()
    for equation in program.eqns:
        own = label_of(equation) or label
        total[own] += equation_multiply_adds(equation)
        for body, times in bodies(equation):
            inner = multiply_adds(body, own)
            if times is None and inner.total():
                raise NotImplementedError(
                    f"Cannot count the products inside of {equation.primitive.name!r}: "
                    "the number of times it runs is unknown."
                )
            for name, count in inner.items():
                total[name] += count * (times or 0)
    return total


def equation_multiply_adds(equation: core.JaxprEqn) -> int:
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
            # A transposed convolution skips the zeros between its input pixels.
            positions = image.size // image.shape[layout.lhs_spec[1]]
        return positions * kernel.size
    return 0
