"""Rematerialization: layers that save only their arguments for the backward pass.

Chen, Xu, Zhang and Guestrin 2016, "Training deep nets with sublinear memory cost",
https://arxiv.org/abs/1604.06174.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from cnn_flax.own_gradient import with_gradient

__all__ = ["remat", "rematerialized"]


def remat(layer: nn.Module, *args: jax.Array, **options: Any) -> tuple[Any, Any]:
    """Calls a layer so that the backward pass recomputes its intermediate results.

    It returns the arguments as well. Use these afterwards instead of the originals: the
    backward pass then runs call by call and accumulates their gradients one after the
    other. `flax.linen.remat` leaves the order to the compiler, which computes all
    calls' results first, and on a CPU it has no effect at all, since XLA merges the
    recomputation with the forward pass.

    Args:
      layer: a module created in a compact method and not called yet, which has only
        parameters and batch statistics, and draws no random numbers.
      *args: its differentiable arguments.
      **options: its further arguments, which get no gradient.

    Returns:
      The layer's result, and `args`.
    """
    if layer.is_initializing():
        return layer(*args, **options), args
    unbound = layer.clone(parent=None, name=None)
    mutable = layer.is_mutable_collection("batch_stats")

    def call(variables, args):
        y, new = unbound.apply(
            variables, *args, mutable=["batch_stats"] if mutable else [], **options
        )
        return (y, args), new

    variables = layer.variables
    variables = {c: variables[c] for c in ("params", "batch_stats") if c in variables}
    (y, args), new = rematerialized(call)(variables, args)
    for name, statistics in (new.get("batch_stats") or {}).items():
        layer.put_variable("batch_stats", name, statistics)
    return y, args


def rematerialized(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function`, saving only its arguments for the backward pass.

    The backward pass computes the function again once its results' cotangents are
    there, so that the intermediate results of one call at a time are in memory.

    Args:
      function: of two trees of arrays, to a tree of floats. The first are variables,
        and may have other dtypes. The second are floats that depend on the images:
        what is computed from variables alone may be kept rather than computed again.
    """

    def gradient(arguments, saved, cotangents):
        del saved
        variables, args = arguments
        args, cotangents = _after(_smallest(arguments), args, cotangents)
        return jax.vjp(function, variables, args)[1](cotangents)

    return with_gradient(function, gradient, save=lambda *_: ())


def _smallest(tree):
    """The smallest array of floats that is not empty."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return min((x for x in leaves if x.size), key=lambda leaf: leaf.size)


@jax.custom_jvp
def _after(any_float, args, cotangents):
    """Returns `args` and `cotangents`, available only once all cotangents are."""
    return lax.platform_dependent(
        any_float, args, cotangents, cpu=_after_loop, default=_after_barrier
    )


def _after_barrier(any_float, args, cotangents):
    del any_float
    return lax.optimization_barrier((args, cotangents))


def _after_loop(any_float, args, cotangents):
    # XLA's CPU backend drops barriers before it merges equal computations. This loop
    # never iterates, but the compiler cannot know that: it has to treat `zero` and the
    # cotangents that come out as new values, available when the loop ends.
    unknown = any_float[(0,) * any_float.ndim]

    def body(state):
        unknown, zero, cotangents = state
        return jnp.zeros_like(unknown), zero + 1, jax.tree.map(jnp.negative, cotangents)

    state = (unknown, jnp.zeros_like(unknown), cotangents)
    _, zero, cotangents = lax.while_loop(lambda s: jnp.isnan(s[0]), body, state)
    return jax.tree.map(lambda x: x + zero.astype(x.dtype), args), cotangents


@_after.defjvp
def _after_jvp(primals, tangents):
    return _after(*primals), tangents[1:]
