"""What was measured: a line a run in `docs/results/architectures.jsonl`."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docs.architectures.experiments import EXPERIMENTS
from docs.machine import machine

__all__ = ["PATH", "measure", "read"]

PATH = Path(__file__).parents[1] / "results" / "architectures.jsonl"

Row = dict[str, Any]


def read() -> dict[str, list[Row]]:
    """The rows of each experiment, in the order in which they were measured."""
    rows: dict[str, list[Row]] = {name: [] for name in EXPERIMENTS}
    for line in PATH.read_text().splitlines():
        row = json.loads(line)
        rows[row["experiment"]].append(row)
    return rows


def measure(names: Iterable[str]) -> None:
    """Runs experiments again; their new rows take the place of the old ones."""
    here = machine()
    known = read() if PATH.exists() else {name: [] for name in EXPERIMENTS}
    for name in names:
        known[name] = []
        for row in EXPERIMENTS[name]():
            known[name].append({"experiment": name, **row, **here})
            print(json.dumps(_rounded(known[name][-1])), flush=True)
            # After every run: one that is stopped has lost nothing.
            lines = [json.dumps(_rounded(row)) for name in known for row in known[name]]
            PATH.write_text("\n".join(lines) + "\n")


def _rounded(value: Any) -> Any:
    """Floats to four digits; what is not a number is null, as JSON has no NaN."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value
