"""Operations with a gradient of their own, in reverse mode only.

`jax.custom_vjp` gives an operation a gradient at the price of forward mode: `jax.jvp`,
`jax.jacfwd` and `jax.linearize` raise. Here the slope along a direction is what JAX
derives. It is linear in the direction; its transpose, which is the gradient, is given.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive, unmapped_aval
from jax.interpreters import ad, batching, mlir

__all__ = ["with_gradient"]


def with_gradient(
    function: Callable[..., Any],
    gradient: Callable[[Any, Any, Any], Any],
    save: Callable[[Any, Any], Any] = lambda arguments, result: result,
) -> Callable[..., Any]:
    """Returns `function` with another gradient, differentiable in every mode.

    Args:
      function: from trees of arrays to a tree of floats; JAX can differentiate it.
      gradient: the cotangents of the arguments (a tuple), as a function of the
        arguments (a tuple), what was saved, and the result's cotangent. JAX can
        differentiate it too.
      save: what the gradient needs in addition to the arguments, as a function of the
        arguments (a tuple) and the result; by default the result.
    """
    operation = jax.custom_jvp(function)

    @partial(operation.defjvp, symbolic_zeros=True)
    def _(primals, tangents):
        result = function(*primals)
        results, result_tree = jax.tree.flatten(result)
        leaves, tree = jax.tree.flatten(primals)
        saved, saved_tree = jax.tree.flatten(save(primals, result))
        directions = jax.tree.leaves(tangents)
        moved = [i for i, d in enumerate(directions) if not isinstance(d, SymbolicZero)]

        def results_of(leaves):
            return jax.tree.leaves(function(*tree.unflatten(leaves)))

        def slopes(known, directions):
            return _slopes(results_of, known[: len(leaves)], moved, directions)

        def transpose(known, cotangents):
            cotangents = jax.tree.leaves(
                gradient(
                    tree.unflatten(known[: len(leaves)]),
                    saved_tree.unflatten(known[len(leaves) :]),
                    result_tree.unflatten(cotangents),
                )
            )
            return [cotangents[i] for i in moved]

        known = [*leaves, *saved]
        tangents = _linear.bind(
            *known,
            *(directions[i] for i in moved),
            split=len(known),
            function=slopes,
            transpose=transpose,
            types=tuple(map(jax.typeof, results)),
        )
        return result, result_tree.unflatten(tangents)

    return operation


def _slopes(function, arrays, moved, directions):
    """Slopes of `function(arrays)` along one direction per index in `moved`."""

    def of_moved(*moving):
        changed = dict(zip(moved, moving, strict=True))
        return function([changed.get(i, array) for i, array in enumerate(arrays)])

    return jax.jvp(of_moved, [arrays[i] for i in moved], directions)[1]


# `function(known, directions)`, lists of arrays to a list of arrays of `types`: linear
# in `directions`, the arguments after the first `split`, where `transpose(known,
# cotangents)` is its transpose.
_linear = Primitive("linear_with_transpose")
_linear.multiple_results = True


@_linear.def_impl
def _call(*arrays, split, function, transpose, types):
    del transpose, types
    return function(list(arrays[:split]), list(arrays[split:]))


@_linear.def_abstract_eval
def _types(*arrays, types, **parameters):
    del arrays, parameters
    return types


def _transpose(cotangents, *arrays, split, function, transpose, types):
    del function, types
    cotangents = list(map(ad.instantiate_zeros, cotangents))
    found = transpose(list(arrays[:split]), cotangents)
    wanted = map(ad.is_undefined_primal, arrays[split:])
    return [None] * split + [
        cotangent if is_wanted else None
        for cotangent, is_wanted in zip(found, wanted, strict=True)
    ]


def _jvp(primals, tangents, *, split, function, **parameters):
    call = partial(_linear.bind, split=split, function=function, **parameters)
    known, directions = list(primals[:split]), list(primals[split:])
    parts = []
    if not all(isinstance(t, ad.Zero) for t in tangents[split:]):
        parts.append(call(*known, *map(ad.instantiate_zeros, tangents[split:])))
    moved = [i for i in range(split) if not isinstance(tangents[i], ad.Zero)]
    if moved:
        along = [tangents[i] for i in moved]

        def of_known(known):
            return function(known, directions)

        parts.append(_slopes(of_known, known, moved, along))
    return call(*primals), [
        reduce(ad.add_tangents, p) for p in zip(*parts, strict=True)
    ]


def _batch(axis, arrays, axes, *, split, function, transpose, types):
    # Every direction gets the axis: its cotangent has it.
    directions = [
        batching.bdim_at_front(array, of_array, axis.size)
        for array, of_array in zip(arrays[split:], axes[split:], strict=True)
    ]
    over_axis = partial(
        jax.vmap,
        in_axes=(list(axes[:split]), 0),
        axis_size=axis.size,
        axis_name=axis.name,
        spmd_axis_name=axis.spmd_name,
    )
    slopes = _linear.bind(
        *arrays[:split],
        *directions,
        split=split,
        function=over_axis(function),
        transpose=over_axis(transpose),
        types=tuple(unmapped_aval(axis.size, 0, of_slope) for of_slope in types),
    )
    return slopes, [0] * len(slopes)


ad.primitive_transposes[_linear] = _transpose
ad.primitive_jvps[_linear] = _jvp
batching.fancy_primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_call, multiple_results=True))
