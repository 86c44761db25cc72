"""Walks through a traced program and finds what each of its arrays sees."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from jax.extend import core

from cnn_flax.analysis import pixel_span
from cnn_flax.analysis.jaxpr import called, default_branch, scan_counts
from cnn_flax.analysis.pixel_span import NoRuleError, PixelSpan
from cnn_flax.analysis.propagation_rules import (
    DEFORM_CONV,
    RULES,
    Operands,
    deform_conv,
)

__all__ = ["Independent", "Seen", "Unknown", "Value", "follow", "image"]


@dataclasses.dataclass(frozen=True)
class Seen:
    """An array that depends on the image.

    Attributes:
      spans: what its elements see along the image's (vertical, horizontal) axis.
    """

    spans: tuple[PixelSpan, PixelSpan]


@dataclasses.dataclass(frozen=True)
class Independent:
    """An array that does not depend on the image.

    Attributes:
      value: gives its value, where that follows from the program alone: it is None for
        parameters and what is made of them.
    """

    value: Callable[[], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Unknown:
    """An array of which nothing is known, as an operation before it has no rule.

    Attributes:
      operation: which one, and why.
    """

    operation: str


Value = Seen | Independent | Unknown


def image(shape: Sequence[int]) -> Seen:
    """The images themselves, `[N, H, W, C]`."""
    _, height, width, _ = shape
    return Seen((pixel_span.of_image(4, 1, height), pixel_span.of_image(4, 2, width)))


def follow(
    program: core.ClosedJaxpr, arguments: Sequence[Value], *, ignore_global: bool
) -> list[Value]:
    """What the results of a program see, given what its arguments see.

    An operation without a rule is no error here: what depends on it is `Unknown`.
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
            return follow(inner, operands, ignore_global=ignore_global)
        if name == "cond":
            inner = default_branch(eqn)
            if inner is None:
                raise NoRuleError(
                    "of which only the one by platform with a default is known"
                )
            return follow(inner, operands[1:], ignore_global=ignore_global)
        if name == "scan":
            return _scan(eqn, operands, ignore_global)
        if name == "optimization_barrier":
            return operands
        if name in RULES:
            return _by_rule(eqn, operands, ignore_global, RULES[name])
        raise NoRuleError("which is not known")
    except NoRuleError as error:
        where = str(eqn.source_info.name_stack)
        told = f"{name!r}{f' in {where}' if where else ''}, {error}"
        return [Unknown(told)] * len(eqn.outvars)


def _by_rule(eqn, operands, ignore_global, rule):
    for value in operands:
        if isinstance(value, Unknown):
            return [value] * len(eqn.outvars)
    pair = []
    for axis in (0, 1):
        given = Operands(
            [v.spans[axis] if isinstance(v, Seen) else None for v in operands],
            [v.aval.shape for v in eqn.invars],
            [v.value if isinstance(v, Independent) else None for v in operands],
            ignore_global,
        )
        results = rule(eqn, given)
        is_list = isinstance(results, list)
        pair.append(results if is_list else [results] * len(eqn.outvars))
    return [Seen(spans) for spans in zip(*pair, strict=True)]


def _evaluate(jaxpr, eqn, operands) -> list[Value]:
    """Results that do not depend on the image, computed when they are asked for."""
    if any(operand.value is None for operand in operands):
        return [Independent()] * len(eqn.outvars)

    @cache
    def results():
        given = {
            variable: operand.value()
            for variable, operand in zip(eqn.invars, operands, strict=True)
            if not isinstance(variable, core.Literal)
        }
        alone = jaxpr.replace(
            constvars=[], invars=list(given), outvars=eqn.outvars, eqns=[eqn]
        )
        return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given.values())

    def result(i):
        return results()[i]

    return [Independent(partial(result, i)) for i in range(len(eqn.outvars))]


def _scan(eqn, operands, ignore_global) -> list[Value]:
    """A loop of known length, turn by turn."""
    p = eqn.params
    consts, carry = scan_counts(eqn)
    fixed, state = operands[:consts], operands[consts : consts + carry]
    stacked = operands[consts + carry :]
    if any(isinstance(value, Seen) for value in stacked):
        raise NoRuleError("over slices that depend on the image")
    slices = [Independent()] * len(stacked)
    for _ in range(p["length"]):
        results = follow(
            p["jaxpr"], [*fixed, *state, *slices], ignore_global=ignore_global
        )
        state = results[:carry]
    told = "'scan', whose stacked results are not followed"
    return [*state, *[Unknown(told)] * (len(eqn.outvars) - carry)]
