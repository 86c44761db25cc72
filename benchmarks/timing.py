"""Honest timing: compile, burn in, then alternate, and wait for the device at each end.

Alternating block by block lets whatever else the machine does hit all candidates alike.
"""

import dataclasses
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

__all__ = ["Timing", "alternate", "header"]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds a call.

    Attributes:
      seconds: one figure a block of calls.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Middle of the blocks, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half of the distance between the quartiles, as a share of the median."""
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def alternate(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    blocks: int,
    block_seconds: float,
) -> dict[str, Timing]:
    """Times each candidate in turn, `blocks` times over.

    Args:
      candidates: name -> function without arguments that gives arrays.
      blocks: how often each gets its turn.
      block_seconds: about how long a turn lasts; at least one call.

    Returns:
      name -> timing.
    """
    calls = {}
    for name, function in candidates.items():
        jax.block_until_ready(function())  # Compiles.
        start = time.perf_counter()
        jax.block_until_ready(function())
        calls[name] = max(1, round(block_seconds / (time.perf_counter() - start)))
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(blocks):
        for name, function in candidates.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                result = function()
            jax.block_until_ready(result)
            seconds[name].append((time.perf_counter() - start) / calls[name])
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def header() -> dict[str, str]:
    """Device and versions that a figure holds for."""
    device = jax.devices()[0]
    return {
        "device": f"{jax.device_count()} x {device.device_kind}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("jax", "flax")},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
