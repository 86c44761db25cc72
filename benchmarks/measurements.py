"""Files of raw results: reading and writing.

`python -m benchmarks` writes a JSON file with a header and rows. The header has the
device, the versions, the commit, the command and the date. Each row has its
`benchmark`, its `case` and its `candidate`; where time was measured, `seconds` (one
figure per block), their `median` and their `spread`; and the benchmark's own figures.
Times are in seconds, memory in bytes.

The pages' experiments write JSON lines, one row per run. Each row has the date, the
machine and JAX's version.
"""

import dataclasses
import datetime
import json
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import environment, today_here
from train.errors import StorageError, UserError
from train.storage import replace_file

__all__ = [
    "Measurements",
    "Row",
    "new_header",
    "read",
    "read_lines",
    "write",
    "write_lines",
]

Row = dict[str, Any]

_NAMES = ("benchmark", "case", "candidate")


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Contents of a JSON file of raw results.

    Attributes:
      header: the setting in which the figures were measured.
      rows: the figures.
    """

    header: dict[str, Any]
    rows: list[Row]


def new_header(arguments: Sequence[str]) -> dict[str, Any]:
    """The header for figures that are measured now.

    Args:
      arguments: of the command line.
    """
    return {
        **environment(),
        "commit": _commit(),
        "command": f"python -m benchmarks {shlex.join(arguments)}".strip(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def write(path: Path, measurements: Measurements) -> None:
    """Writes a JSON file with one line per row, atomically.

    Raises:
      StorageError: the file cannot be written.
    """
    head = json.dumps(measurements.header, indent=2).replace("\n", "\n  ")
    rows = ",\n    ".join(json.dumps(row) for row in measurements.rows)
    text = f'{{\n  "header": {head},\n  "rows": [\n    {rows}\n  ]\n}}\n'
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def read(path: Path) -> Measurements:
    """Reads a JSON file.

    Raises:
      UserError: the file does not exist or does not hold raw results.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from error
    header = content.get("header") if isinstance(content, dict) else None
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(header, dict) or not isinstance(rows, list):
        raise UserError(
            f"{path} was not written by `python -m benchmarks --json`: "
            "it has no header and rows."
        )
    for i, row in enumerate(rows):
        missing = [n for n in _NAMES if not isinstance(row, dict) or n not in row]
        if missing:
            raise UserError(f"{path}: row {i} has no {missing[0]}.")
    return Measurements(header, rows)


def read_lines(path: Path) -> list[Row]:
    """Reads the rows of a file of JSON lines, in the order of measurement."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_lines(
    path: Path, measured: Iterable[Row], others: Iterable[Row] = ()
) -> None:
    """Replaces the rows of a file of JSON lines, writing after each new row.

    Each new row gets the date and the machine. A row whose figures, times included,
    equal those of an older row belongs to a run that was not repeated: the older row
    stays.

    Args:
      path: of the file.
      measured: the new rows.
      others: rows that stay, ahead of the new ones.
    """
    here = today_here()
    older = read_lines(path) if path.exists() else []
    lines = [json.dumps(row) for row in others]
    for row in measured:
        same = (old for old in older if {**old, **row} == old)
        lines.append(json.dumps(next(same, {**row, **here})))
        print(lines[-1], flush=True)
        path.write_text("\n".join(lines) + "\n", "utf-8")


def _commit() -> str:
    """The checkout's commit, with "-dirty" if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
