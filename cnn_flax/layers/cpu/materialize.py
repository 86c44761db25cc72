"""Keeping XLA's CPU backend from recomputing an array in every operation that reads it.

The backend fuses an operation into each of its readers: an array that is read nine
times is computed nine times. It drops optimization barriers, but it does materialize
the initial value of a loop; a loop that never iterates copies nothing.
"""

import jax
import jax.numpy as jnp

__all__ = ["materialize", "materialize_on_cpu"]


def materialize(x: jax.Array) -> jax.Array:
    """Returns `x`, computed once however often it is read.

    Use it on the result of an operation that is expensive per element. On other
    platforms it is a no-op. On a mesh it costs one boolean all-reduce, unless each
    device has its own part by `jax.shard_map`.

    Args:
      x: numbers of any shape.
    """
    return jax.lax.platform_dependent(x, cpu=materialize_on_cpu, default=lambda x: x)


@jax.custom_jvp
def materialize_on_cpu(x: jax.Array, replicated: jax.Array | None = None) -> jax.Array:
    """`materialize` for code that only a CPU runs.

    Args:
      x: numbers of any shape.
      replicated: an array of any shape that every device holds, which saves the
        all-reduce; by default `x`.
    """

    # No number is below minus infinity, but XLA cannot know that before the loop runs.
    def iterates(x):
        array = x if replicated is None else replicated
        return jnp.any(array[(slice(1),) * array.ndim] < -jnp.inf)

    return jax.lax.while_loop(iterates, jnp.negative, x)


@materialize_on_cpu.defjvp
def _materialize_jvp(primals, tangents):
    return materialize_on_cpu(*primals), tangents[0]
