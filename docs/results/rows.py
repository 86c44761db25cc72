"""Raw results: a line of JSON a run, in `docs/results/EXPERIMENT.jsonl`."""

import datetime
import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

__all__ = ["Row", "read", "spread", "where", "write"]

Row = dict[str, Any]

_FOLDER = Path(__file__).parent


def read(experiment: str) -> list[Row]:
    """The rows, in the order in which they were measured."""
    lines = (_FOLDER / f"{experiment}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def write(experiment: str, measured: Iterable[Row]) -> None:
    """Writes rows as they come, with day and machine, in place of older ones."""
    machine = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "jax": jax.__version__,
    }
    lines = []
    for row in measured:
        lines.append(json.dumps({**row, **machine}))
        print(lines[-1], flush=True)
        (_FOLDER / f"{experiment}.jsonl").write_text("\n".join(lines) + "\n")


def spread(values: Sequence[float]) -> str:
    """Mean and range of shares, such as "85.1 % (84.9 to 85.4)"."""
    mean, low, high = (
        f"{100 * value:.1f}"
        for value in (sum(values) / len(values), min(values), max(values))
    )
    return f"{mean} % ({low} to {high})"


def where(rows: Sequence[Row]) -> str:
    """When and on what the rows were measured."""
    machines = {(row["date"], row["machine"], row["jax"]) for row in rows}
    return "; ".join(
        f"{date}, CPU ({machine}), JAX {version}"
        for date, machine, version in sorted(machines)
    )
