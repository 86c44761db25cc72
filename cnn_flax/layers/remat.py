"""Layers that keep their arguments alone for the gradient's pass.

Chen, Xu, Zhang and Guestrin 2016, "Training deep nets with sublinear memory cost",
https://arxiv.org/abs/1604.06174.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

__all__ = ["remat"]


def remat(layer: nn.Module, *args: jax.Array, **options: Any) -> tuple[Any, Any]:
    """Calls a layer so that the gradient's pass computes its insides anew.

    Whoever goes on with the arguments that come back, in place of those that went in,
    has the gradients of all calls added up one call after the other. `flax.linen.remat`
    leaves that to the compiler, which first computes them all; and on a CPU it has no
    effect at all, since XLA merges the second computation with the first. Forward mode
    (`jax.jvp`) does not work.

    Args:
      layer: a module made in a compact method and not called yet, with parameters and
        batch statistics alone, and no random numbers.
      *args: its arguments.
      **options: its further arguments, which no gradient goes to.

    Returns:
      What the layer returns, and `args`.
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

    def forward(variables, args):
        return call(variables, args), (variables, args)

    def backward(kept, cotangents):
        variables, args = kept
        args, cotangents = _after(variables["params"], args, cotangents)
        return jax.vjp(call, variables, args)[1](cotangents)

    keeping = jax.custom_vjp(call)
    keeping.defvjp(forward, backward)
    variables = layer.variables
    variables = {c: variables[c] for c in ("params", "batch_stats") if c in variables}
    (y, args), new = keeping(variables, args)
    for name, statistics in new.get("batch_stats", {}).items():
        layer.put_variable("batch_stats", name, statistics)
    return y, args


@jax.custom_vjp
def _after(params, args, cotangents):
    """`args` and `cotangents`, not to be had before all cotangents are."""
    return lax.platform_dependent(
        params, args, cotangents, cpu=_after_loop, default=_after_barrier
    )


def _after_barrier(params, args, cotangents):
    del params
    return lax.optimization_barrier((args, cotangents))


def _after_loop(params, args, cotangents):
    # XLA's CPU backend drops barriers before it merges what is computed twice. This
    # loop never runs, which only the running program can know: to the compiler, what
    # it leaves of `zero` and the cotangents is new, and there when it is over.
    unknown = jax.tree.leaves(params)[0].reshape(-1)[0]

    def body(state):
        unknown, zero, cotangents = state
        return jnp.zeros_like(unknown), zero + 1, jax.tree.map(jnp.negative, cotangents)

    state = (unknown, jnp.zeros_like(unknown), cotangents)
    _, zero, cotangents = lax.while_loop(lambda s: jnp.isnan(s[0]), body, state)
    return jax.tree.map(lambda x: x + zero.astype(x.dtype), args), cotangents


def _after_forward(params, args, cotangents):
    return _after(params, args, cotangents), params


def _after_backward(params, cotangents):
    return jax.tree.map(jnp.zeros_like, params), *cotangents


_after.defvjp(_after_forward, _after_backward)
