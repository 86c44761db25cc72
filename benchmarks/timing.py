"""Honest timing: compile, warm up, then alternate, and wait for the device at each end.

Candidates alternate block by block, so that other load on the machine affects all of
them equally.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

__all__ = [
    "PEER_PAUSE",
    "Timing",
    "alternate",
    "repeated",
    "take_turns",
]

PEER_PAUSE = 0.2  # seconds: torch's idle threads spin for about this long.


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds per call.

    Attributes:
      seconds: one figure per block of calls.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over the blocks, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half of the interquartile range, relative to the median."""
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median

    def row(self) -> dict[str, Any]:
        """Returns the entries of a row of raw results."""
        seconds = [float(f"{value:.5g}") for value in self.seconds]
        return {"seconds": seconds, "median": self.median, "spread": self.spread}


def take_turns(
    candidates: Mapping[str, Callable[[int], float]],
    *,
    blocks: int,
    block_seconds: float,
    pause: float = 0.0,
) -> dict[str, Timing]:
    """Times each candidate in turn, `blocks` times over.

    A candidate whose work takes ten times as long as a turn gets only three turns, so
    that it does not hold up the others.

    A turn begins with work that is not timed: the caches hold another candidate's data,
    and freed memory may have gone back to the system, or to a virtual machine's host.

    Args:
      candidates: name -> function that does its work this many times and returns the
        seconds it took. The first call may take longer.
      blocks: number of turns per candidate.
      block_seconds: approximate duration of a turn; the work is done at least once.
      pause: seconds before each turn.

    Returns:
      name -> timing.
    """
    calls, turns = {}, {}
    for name, work in candidates.items():
        work(1)  # Compiles.
        time.sleep(pause)
        once = work(1)
        calls[name] = max(1, round(block_seconds / once))
        turns[name] = min(blocks, 3) if once > 10 * block_seconds else blocks
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for block in range(blocks):
        for name, work in candidates.items():
            if block >= turns[name]:
                continue
            time.sleep(pause)
            work(1)
            seconds[name].append(work(calls[name]) / calls[name])
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def alternate(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    blocks: int,
    block_seconds: float,
    pause: float = 0.0,
) -> dict[str, Timing]:
    """Times functions of this process in turn; see `take_turns`.

    Args:
      candidates: name -> function without arguments that returns arrays.
      blocks: number of turns per candidate.
      block_seconds: approximate duration of a turn; at least one call.
      pause: seconds before each turn.

    Returns:
      name -> timing.
    """
    return take_turns(
        {name: repeated(function) for name, function in candidates.items()},
        blocks=blocks,
        block_seconds=block_seconds,
        pause=pause,
    )


def repeated(function: Callable[[], Any]) -> Callable[[int], float]:
    """Makes work for `take_turns` of a function that returns arrays."""
    return partial(_call, function)


def _call(function: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = function()
    jax.block_until_ready(result)
    return time.perf_counter() - start
