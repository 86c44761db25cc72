"""Keeping XLA's CPU backend from computing an array again in each operation on it.

The backend puts an operation into every one that reads it: what is read nine times is
computed nine times. It drops optimization barriers, but computes what a loop begins
with; and of a loop that never turns it copies nothing.
"""

import jax
import jax.numpy as jnp

__all__ = ["computed", "computed_on_cpu"]


def computed(x: jax.Array) -> jax.Array:
    """The same array, of which no number is computed again where it is read again.

    For the end of what costs much a number. Other platforms run nothing here. Devices
    of a mesh tell one another one truth value, unless each has its own part by
    `jax.shard_map`.

    Args:
      x: numbers of any shape.
    """
    return jax.lax.platform_dependent(x, cpu=computed_on_cpu, default=lambda x: x)


@jax.custom_jvp
def computed_on_cpu(x: jax.Array, known: jax.Array | None = None) -> jax.Array:
    """`computed`, for what only a CPU runs.

    Args:
      x: numbers of any shape.
      known: some that all devices have, of any shape; by default those of `x`, one of
        which the devices of a mesh tell one another.
    """

    # No number is below this one, which XLA leaves for the loop to find.
    def turns(x):
        some = x if known is None else known
        return jnp.any(some[(slice(1),) * some.ndim] < -jnp.inf)

    return jax.lax.while_loop(turns, jnp.negative, x)


@computed_on_cpu.defjvp
def _computed_jvp(primals, tangents):
    return computed_on_cpu(*primals), tangents[0]
