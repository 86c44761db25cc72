"""Choosing an operation's formulation by platform.

XLA's CPU backend runs some operations far below the speed of the machine; its other
backends hand them to specialised libraries. Callers see one function: shapes, dtypes
and, up to rounding, numbers are the same on every platform.
"""

from collections.abc import Callable

import jax
from jax import lax

from cnn_flax.own_gradient import with_gradient

__all__ = ["dispatch"]

Operation = Callable[..., jax.Array]


def dispatch(
    plain: Operation,
    on_cpu: Operation,
    cpu_gradients: Callable[..., tuple[jax.Array, ...]] | None = None,
) -> Operation:
    """Returns an operation that runs as `on_cpu` on a CPU and as `plain` elsewhere.

    It can be differentiated in every mode. Forward mode (`jax.jvp`, `jax.jacfwd`) runs
    what JAX derives from the two formulations.

    Args:
      plain: an operation on arrays. Every other platform runs it, and the gradients
        that JAX derives from it.
      on_cpu: an operation with the same result; pass `plain` where only the gradients
        differ.
      cpu_gradients: the gradients on a CPU, as a function of the arguments (a tuple),
        the result and the result's cotangent; by default what JAX derives from
        `on_cpu`.

    Returns:
      An operation with a custom gradient.
    """

    def call(*arguments):
        if on_cpu is plain:  # Nothing to choose from: trace it once.
            return plain(*arguments)
        return lax.platform_dependent(*arguments, cpu=on_cpu, default=plain)

    def gradients(arguments, y, cotangent):
        return lax.platform_dependent(
            arguments,
            y,
            cotangent,
            cpu=cpu_gradients or derived(on_cpu),
            default=derived(plain),
        )

    def derived(operation):
        def gradients(arguments, y, cotangent):
            del y
            return jax.vjp(operation, *arguments)[1](cotangent)

        return gradients

    return with_gradient(call, gradients)
