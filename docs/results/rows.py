"""Raw results: a line of JSON a run, in `docs/results/EXPERIMENT.jsonl`."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from docs.machine import machine

__all__ = ["Row", "read", "spread", "write"]

Row = dict[str, Any]

_FOLDER = Path(__file__).parent


def read(experiment: str) -> list[Row]:
    """The rows, in the order in which they were measured."""
    lines = (_FOLDER / f"{experiment}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def write(experiment: str, measured: Iterable[Row]) -> None:
    """Writes rows as they come, with day and machine, in place of older ones.

    One whose figures are those of an older one, times and all, is of a run that had
    ended: it keeps the day and the machine of that.
    """
    here = machine()
    try:
        older = read(experiment)
    except FileNotFoundError:
        older = []
    lines = []
    for row in measured:
        same = (old for old in older if {**old, **row} == old)
        lines.append(json.dumps(next(same, {**row, **here})))
        print(lines[-1], flush=True)
        (_FOLDER / f"{experiment}.jsonl").write_text("\n".join(lines) + "\n")


def spread(values: Sequence[float]) -> str:
    """Mean and range of shares, such as "85.1 % (84.9 to 85.4)"."""
    mean, low, high = (
        f"{100 * value:.1f}"
        for value in (sum(values) / len(values), min(values), max(values))
    )
    return f"{mean} % ({low} to {high})"
