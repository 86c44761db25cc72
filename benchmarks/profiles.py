"""Profiles by `jax.profiler.trace`: the time of each operation."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from train.errors import UserError

__all__ = ["own_times", "operations"]

_BOOKKEEPING = re.compile("::|^end: ")

# Name of an operation, nanoseconds of its start and of its end.
Event = tuple[str, float, float]


def operations(folder: Path, most: int = 15) -> list[tuple[str, float, float]]:
    """Returns the operations that took longest: name, seconds, share of all.

    The time of an operation is without that of the operations within it, summed over
    the profiled steps and over a CPU's threads. A GPU's operations are its kernels.

    Args:
      folder: that `jax.profiler.trace` wrote.
      most: greatest number of operations.

    Raises:
      UserError: there is no profile, or it has no operations.
    """
    files = sorted(folder.rglob("*.xplane.pb"))
    if not files:
        raise UserError(f"There is no profile in {folder}.")
    total: dict[str, float] = defaultdict(float)
    # The names of the folders are times: the last is the newest.
    for events in _lines(jax.profiler.ProfileData.from_file(str(files[-1]))):
        for name, time in own_times(events).items():
            total[name] += time
    whole = sum(total.values())
    if not whole:
        raise UserError(f"The profile in {folder} has no operations.")
    longest = sorted(total.items(), key=lambda item: -item[1])[:most]
    return [(name, time / 1e9, time / whole) for name, time in longest]


def own_times(events: Iterable[Event]) -> dict[str, float]:
    """Sums the time per name, without the time of the events within each event.

    Args:
      events: of one thread or stream: of two, one contains the other or ends before it.

    Returns:
      Name -> nanoseconds.
    """
    total: dict[str, float] = defaultdict(float)
    outer: list[tuple[str, float]] = []  # Name and end.
    for name, start, end in sorted(events, key=lambda e: (e[1], -e[2])):
        while outer and outer[-1][1] <= start:
            outer.pop()
        if outer:
            total[outer[-1][0]] -= min(end, outer[-1][1]) - start
        total[name] += end - start
        outer.append((name, end))
    return total


def _lines(profile: Any) -> Iterator[list[Event]]:
    """Yields the events of each stream of accelerators, or else of XLA's threads."""
    planes = list(profile.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in devices or planes:
        lines = list(plane.lines)
        # Some versions add lines that summarize the streams, one of them operations.
        summary = [line for line in lines if line.name == "XLA Ops"]
        for line in summary or lines:
            if not line.name.startswith(("XLA Ops", "Stream", "tf_XLA")):
                continue
            events = [(e.name, e.start_ns, e.end_ns) for e in line.events]
            if plane not in devices:
                # The runtime's, such as "ThreadpoolListener::Record", and markers.
                events = [e for e in events if not _BOOKKEEPING.search(e[0])]
            yield events
