"""Propagates spans of pixels through a traced program, equation by equation."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from jax.extend import core
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]

from cnn_flax.analysis import pixel_span
from cnn_flax.analysis.jaxpr import called, default_branch, scan_counts
from cnn_flax.analysis.pixel_span import NoRuleError, PixelSpan
from cnn_flax.analysis.propagation_rules import (
    DEFORM_CONV,
    RULES,
    Operands,
    deform_conv,
)

__all__ = ["Independent", "Seen", "Unknown", "Value", "image", "propagate"]


@dataclasses.dataclass(frozen=True)
class Seen:
    """An array that depends on the image.

    Attributes:
      spans: what its elements see along the image's (vertical, horizontal) axes.
    """

    spans: tuple[PixelSpan, PixelSpan]


@dataclasses.dataclass(frozen=True)
class Independent:
    """An array that does not depend on the image.

    Attributes:
      value: returns its value, if the program alone determines it; None for parameters
        and what depends on them.
    """

    value: Callable[[], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Unknown:
    """An array that depends on an operation without a rule.

    Attributes:
      operation: the operation, and why it has no rule.
    """

    operation: str


Value = Seen | Independent | Unknown


def image(shape: Sequence[int]) -> Seen:
    """The value of the images, `[N, H, W, C]`."""
    _, height, width, _ = shape
    return Seen((pixel_span.of_image(4, 1, height), pixel_span.of_image(4, 2, width)))


def propagate(
    program: ClosedJaxpr, arguments: Sequence[Value], *, ignore_global: bool
) -> list[Value]:
    """Returns what the results of a program see, given what its arguments see.

    An operation without a rule is not an error: what depends on it is `Unknown`.
    """
    constants = [Independent(partial(_same, c)) for c in program.consts]
    return _run(program.jaxpr, [*constants, *arguments], ignore_global)


def _same(value):
    return value


def _run(jaxpr, arguments, ignore_global) -> list[Value]:
    values: dict[Any, Value] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], arguments, strict=True)
    )

    def read(variable) -> Value:
        if isinstance(variable, core.Literal):
            return Independent(partial(_same, variable.val))
        return values[variable]

    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        if all(isinstance(operand, Independent) for operand in operands):
            results = _evaluate(jaxpr, eqn, operands)
        else:
            results = _apply(eqn, operands, ignore_global)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _apply(eqn, operands: list[Value], ignore_global) -> Sequence[Value]:
    name = eqn.primitive.name
    try:
        if name == "jit" and DEFORM_CONV.fullmatch(eqn.params["name"]):
            return _by_rule(eqn, operands, ignore_global, deform_conv)
        inner = called(eqn)
        if inner is not None:
            return propagate(inner, operands, ignore_global=ignore_global)
        if name == "cond":
            inner = default_branch(eqn)
            if inner is None:
                raise NoRuleError(
                    "which is followed only if it is platform-dependent with a default"
                )
            return propagate(inner, operands[1:], ignore_global=ignore_global)
        if name == "scan":
            return _scan(eqn, operands, ignore_global)
        if name == "optimization_barrier":
            return operands
        if name in RULES:
            return _by_rule(eqn, operands, ignore_global, RULES[name])
        raise NoRuleError("which has no rule")
    except NoRuleError as error:
        where = str(eqn.source_info.name_stack)
        operation = f"{name!r}{f' in {where}' if where else ''}, {error}"
        return [Unknown(operation)] * len(eqn.outvars)


def _by_rule(eqn, operands, ignore_global, rule):
    for value in operands:
        if isinstance(value, Unknown):
            return [value] * len(eqn.outvars)
    pair = []
    for axis in (0, 1):
        along_axis = Operands(
            [v.spans[axis] if isinstance(v, Seen) else None for v in operands],
            [v.aval.shape for v in eqn.invars],
            [v.value if isinstance(v, Independent) else None for v in operands],
            ignore_global,
        )
        results = rule(eqn, along_axis)
        is_list = isinstance(results, list)
        pair.append(results if is_list else [results] * len(eqn.outvars))
    return [Seen(spans) for spans in zip(*pair, strict=True)]


def _evaluate(jaxpr, eqn, operands) -> list[Value]:
    """Results that do not depend on the image, computed lazily."""
    if any(operand.value is None for operand in operands):
        return [Independent()] * len(eqn.outvars)

    @cache
    def results():
        inputs = {
            variable: operand.value()
            for variable, operand in zip(eqn.invars, operands, strict=True)
            if not isinstance(variable, core.Literal)
        }
        program = jaxpr.replace(
            constvars=[], invars=list(inputs), outvars=eqn.outvars, eqns=[eqn]
        )
        return core.jaxpr_as_fun(ClosedJaxpr(program, ()))(*inputs.values())

    def result(i):
        return results()[i]

    return [Independent(partial(result, i)) for i in range(len(eqn.outvars))]


def _scan(eqn, operands, ignore_global) -> list[Value]:
    """Unrolls a loop of known length."""
    p = eqn.params
    consts, carry = scan_counts(eqn)
    fixed, state = operands[:consts], operands[consts : consts + carry]
    stacked = operands[consts + carry :]
    if any(isinstance(value, Seen) for value in stacked):
        raise NoRuleError("over slices that depend on the image")
    slices = [Independent()] * len(stacked)
    for _ in range(p["length"]):
        results = propagate(
            p["jaxpr"], [*fixed, *state, *slices], ignore_global=ignore_global
        )
        state = results[:carry]
    operation = "'scan', whose stacked results are not followed"
    return [*state, *[Unknown(operation)] * (len(eqn.outvars) - carry)]
