"""Growth of a training step's time and memory with resolution, batch and depth.

Each exponent is the slope of the least-squares line through the logarithms: 1 means
that the cost is proportional.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import cnn_flax
from benchmarks.measurements import Row
from benchmarks.network_programs import training_step
from benchmarks.options import Options
from benchmarks.tables import OURS, Columns
from benchmarks.timing import alternate

__all__ = ["COLUMNS", "TITLE", "exponent", "measure"]

TITLE = "growth of the cost of a training step of ResNet-50's blocks"
COLUMNS: Columns = {
    "memory, MB": ("memory", ",.1f", 1e-6),
    "exponent of time": ("time_exponent", ".2f"),
    "exponent of memory": ("memory_exponent", ".2f"),
}

# Axis -> its values; the other axes stay at their first value.
_AXES = {
    "resolution": (64, 96, 128, 192),
    "batch": (4, 8, 16, 32),
    "blocks per stage": (1, 2, 3, 4),
}
_QUICK = {"resolution": (32, 64), "batch": (1, 2), "blocks per stage": (1, 2)}


def measure(options: Options) -> list[Row]:
    """Measures each axis in one run of turns; memory is what the compiler plans."""
    rows = []
    compiled = cache(partial(_compiled, options))
    axes = _QUICK if options.quick else _AXES
    first = {axis: values[0] for axis, values in axes.items()}
    for axis, values in axes.items():
        steps = {n: compiled(*{**first, axis: n}.values()) for n in values}
        timings = alternate(
            {str(n): run for n, (run, _) in steps.items()},
            **options.turns(block_seconds=0.5),
        )
        memory = [steps[n][1] for n in values]
        for n, used in zip(values, memory, strict=True):
            name = {"case": f"{axis} {n}", "candidate": OURS}
            rows.append({**name, **timings[str(n)].row(), "memory": used})
        rows[-1]["time_exponent"] = exponent(
            values, [timings[str(n)].median for n in values]
        )
        rows[-1]["memory_exponent"] = exponent(values, memory)
    return rows


def exponent(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """Fits p of `figures = c * sizes ** p` by least squares in the logarithms."""
    x, y = np.log(sizes), np.log(figures)
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / (x * x).sum())


def _compiled(
    options: Options, resolution: int, batch_size: int, blocks: int
) -> tuple[Any, int]:
    """A step without arguments, and its memory in bytes."""
    stages = 1 if options.quick else 4
    net = cnn_flax.create_model(
        "resnet50",
        stage_sizes=(blocks,) * stages,
        width=8 if options.quick else 64,
        dtype=jnp.dtype(options.dtype),
    )
    step, state, batch = training_step(net, batch_size, resolution)
    arguments = (state, batch, jax.random.key(1))
    compiled = jax.jit(step).lower(*arguments).compile()
    memory: Any = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return partial(compiled, *arguments), used
