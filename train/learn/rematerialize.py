"""Rematerialization by stage: only what passes from stage to stage is saved.

Chen, Xu, Zhang and Guestrin 2016, "Training deep nets with sublinear memory cost",
https://arxiv.org/abs/1604.06174. The stages are found in the traced program: models do
not know of them.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]

from cnn_flax.layers.remat import rematerialized

__all__ = ["rematerialize_stages"]


def rematerialize_stages(
    function: Callable[[Any, Any], tuple[Any, Sequence[jax.Array]]],
) -> Callable[[Any, Any], Any]:
    """Returns a function whose backward pass computes the stages again, one at a time.

    What comes after the last stage, such as a model's head, is saved as usual.

    Args:
      function: of two trees of arrays: variables, of any dtype, and inputs, which are
        floats. It returns its result, and the output of each stage. A stage is what the
        program computes from the output of the stage before it to its own.

    Returns:
      The function of the same arguments that returns the result alone.
    """

    def in_stages(variables: Any, inputs: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(variables, inputs)
        program, tree = traced.jaxpr, jax.tree.structure(shapes[0])
        results = program.outvars[: tree.num_leaves]
        made_by = {v: i for i, step in enumerate(program.eqns) for v in step.outvars}
        outputs = [v for v in program.outvars[tree.num_leaves :] if v in made_by]
        ends = sorted({made_by[v] + 1 for v in outputs})
        leaves = jax.tree.leaves(variables)
        names = [*program.constvars, *program.invars]
        values = dict(
            zip(names, [*traced.consts, *leaves, *jax.tree.leaves(inputs)], strict=True)
        )
        given = names[: len(traced.consts) + len(leaves)]
        for start, end in pairwise([0, *ends]):
            stage, rest = program.eqns[start:end], program.eqns[end:]
            needed = {*_inputs(rest), *_names(results)}
            made = [v for step in stage for v in step.outvars if v in needed]
            values |= _run_stage(program, stage, made, given, values)
        head = program.eqns[ends[-1] if ends else 0 :]
        reads = [v for v in _inputs(head, results) if v in values]
        found = _as_function(program, head, reads, results)(*(values[v] for v in reads))
        return jax.tree.unflatten(tree, found)

    return in_stages


def _run_stage(
    program: Any,
    steps: Sequence[Any],
    made: Sequence[Any],
    given: Iterable[Any],
    values: dict[Any, Any],
) -> dict[Any, Any]:
    """The values that a stage makes, by name.

    Args:
      program: the whole program.
      steps: those of the stage.
      made: what later steps read of what the stage makes.
      given: names of the variables.
      values: of all names so far.
    """
    reads = [v for v in _inputs(steps) if v in values]
    given = {*given, *(v for v in reads if not _is_float(v))}
    variables = [v for v in reads if v in given]
    inputs = [v for v in reads if v not in given]
    floats = [v for v in made if _is_float(v)]
    others = [v for v in made if not _is_float(v)]
    names = [*variables, *inputs]

    def stage(variables: Any, inputs: Any) -> Any:
        return _as_function(program, steps, names, floats)(*variables, *inputs)

    if inputs:
        stage = rematerialized(stage)
    found = stage([values[v] for v in variables], [values[v] for v in inputs])
    rest = _as_function(program, steps, names, others)(*(values[v] for v in names))
    return dict(zip([*floats, *others], [*found, *rest], strict=True))


def _as_function(
    program: Any, steps: Sequence[Any], reads: Sequence[Any], results: Sequence[Any]
) -> Callable[..., list[Any]]:
    """Some steps of a program, as a function of what they read."""
    part = program.replace(constvars=(), invars=reads, outvars=results, eqns=steps)
    return core.jaxpr_as_fun(ClosedJaxpr(part, ()))


def _inputs(steps: Sequence[Any], results: Sequence[Any] = ()) -> list[Any]:
    """The names that steps and results read, each once."""
    read = [v for step in steps for v in step.invars]
    return list(dict.fromkeys(_names([*read, *results])))


def _names(atoms: Iterable[Any]) -> list[Any]:
    """All but the literals."""
    return [v for v in atoms if not isinstance(v, core.Literal)]


def _is_float(name: Any) -> bool:
    return jnp.issubdtype(name.aval.dtype, jnp.floating)
