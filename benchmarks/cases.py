"""Measures the candidates of a case, each in its own process, in turns."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measurements import Row
from benchmarks.timing import take_turns
from benchmarks.worker_process import start_workers

__all__ = ["measure_case"]


def measure_case(
    case: str,
    candidates: Mapping[str, Sequence[Any]],
    turns: Mapping[str, Any],
    images: int | None = None,
) -> list[Row]:
    """Returns one row per candidate.

    If a candidate cannot be started, its row has `error` and the others are measured.

    Args:
      case: name of the case.
      candidates: name -> arguments of `benchmarks.worker_process.WorkerProcess`.
      turns: arguments of `benchmarks.timing.take_turns`.
      images: images per call, for rows with images per second.
    """
    rows: dict[str, Row] = {
        name: {"case": case, "candidate": name} for name in candidates
    }
    with start_workers(candidates, rows) as workers:
        timings = take_turns(
            {name: worker.run for name, worker in workers.items()}, **turns
        )
    for name, timing in timings.items():
        worker = workers[name]
        rows[name] |= {**timing.row(), **worker.info}
        if worker.extra_memory is not None:
            rows[name]["extra_memory"] = worker.extra_memory
        if images is not None:
            rows[name]["images_per_second"] = images / timing.median
    return list(rows.values())
