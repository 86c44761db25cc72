"""Candidates of one case, each in a process of its own, that take turns."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measurements import Row
from benchmarks.timing import take_turns
from benchmarks.worker_process import started

__all__ = ["measure_case"]


def measure_case(
    case: str,
    candidates: Mapping[str, Sequence[Any]],
    turns: Mapping[str, Any],
    images: int | None = None,
) -> list[Row]:
    """A row a candidate; one that cannot be started has `error`, the others go on.

    Args:
      case: what is measured.
      candidates: name -> arguments of `benchmarks.worker_process.WorkerProcess`.
      turns: arguments of `benchmarks.timing.take_turns`.
      images: how many a call makes, where they are to be counted.
    """
    rows: dict[str, Row] = {who: {"case": case, "candidate": who} for who in candidates}
    with started(candidates, rows) as workers:
        timings = take_turns({who: w.run for who, w in workers.items()}, **turns)
    for who, timing in timings.items():
        worker = workers[who]
        rows[who] |= {**timing.row(), **worker.info}
        if worker.extra_memory is not None:
            rows[who]["extra_memory"] = worker.extra_memory
        if images is not None:
            rows[who]["images_per_second"] = images / timing.median
    return list(rows.values())
