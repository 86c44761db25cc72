"""Compilation of programs that run once, such as initializers."""

from collections.abc import Callable
from typing import Any

import jax

__all__ = ["jit_once"]

# LLVM's level: above 1, the random numbers of an initializer compile for ten times as
# long, and are drawn no faster. They may differ in the last bit.
_ON_CPU = {"xla_backend_optimization_level": 1}


def jit_once(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compiles a function that runs once: quickly, where the compiler lets us choose.

    Args:
      function: a pure function.
      **options: those of `jax.jit`.
    """
    is_slow = not jax.config.read("jax_disable_most_optimizations")
    quickly = _ON_CPU if jax.default_backend() == "cpu" and is_slow else None
    return jax.jit(function, compiler_options=quickly, **options)
