"""An operation that a CPU computes by another formulation than other devices.

XLA's CPU backend is many times slower than the machine at some operations, which its
other backends hand to libraries that are made for them. Users of an operation see the
one function: the shapes, dtypes and, up to rounding, the numbers are the same.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

__all__ = ["by_platform"]

Operation = Callable[..., jax.Array]


def by_platform(
    plain: Operation,
    on_cpu: Operation,
    cpu_gradients: Callable[..., tuple[jax.Array, ...]] | None = None,
) -> Operation:
    """`plain`, which a CPU computes as `on_cpu` does.

    Reverse mode can be differentiated again; forward mode (`jax.jvp`, `jax.jacfwd`)
    works on the gradient, but not on the operation itself.

    Args:
      plain: an operation on arrays, as every other platform computes it and its
        gradients.
      on_cpu: one that gives the same; or `plain`, where only gradients differ.
      cpu_gradients: its gradients, from the arguments, the result and the result's
        cotangent; by default what JAX derives from `on_cpu`.

    Returns:
      An operation with a gradient of its own.
    """

    def call(*arguments):
        if on_cpu is plain:  # Nothing to choose, nor to trace twice.
            return plain(*arguments)
        return lax.platform_dependent(*arguments, cpu=on_cpu, default=plain)

    def forward(*arguments):
        y = call(*arguments)
        return y, (arguments, y)

    def backward(kept, cotangent):
        return lax.platform_dependent(
            *kept,
            cotangent,
            cpu=cpu_gradients or derived(on_cpu),
            default=derived(plain),
        )

    def derived(operation):
        def gradients(arguments, y, cotangent):
            del y
            return jax.vjp(operation, *arguments)[1](cotangent)

        return gradients

    operation: Any = jax.custom_vjp(call)
    operation.defvjp(forward, backward)
    return operation
