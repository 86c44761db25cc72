"""Raw results: a JSON file of what was measured, and on what, when and how.

`header` has the device, the versions, the commit, the command and the date. `rows` are
figures: each has its `benchmark`, its `case` and its `candidate`; where time was taken,
`seconds` (one figure a block), their `median` and their `spread`; and what else the
benchmark knows. Times are in seconds, memory in bytes.
"""

import dataclasses
import datetime
import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import header
from train.errors import StorageError, UserError

__all__ = ["Record", "Row", "describe", "read", "write"]

Row = dict[str, Any]

_NAMES = ("benchmark", "case", "candidate")


@dataclasses.dataclass(frozen=True)
class Record:
    """What a file holds.

    Attributes:
      header: what the figures hold for.
      rows: the figures.
    """

    header: dict[str, Any]
    rows: list[Row]


def describe(arguments: Sequence[str]) -> dict[str, Any]:
    """The header of what is measured now.

    Args:
      arguments: of the command line.
    """
    return {
        **header(),
        "commit": _commit(),
        "command": f"python -m benchmarks {shlex.join(arguments)}".strip(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def write(path: Path, record: Record) -> None:
    """Writes a file, a line a row.

    Raises:
      StorageError: it cannot be written.
    """
    head = json.dumps(record.header, indent=2).replace("\n", "\n  ")
    rows = ",\n    ".join(json.dumps(row) for row in record.rows)
    text = f'{{\n  "header": {head},\n  "rows": [\n    {rows}\n  ]\n}}\n'
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def read(path: Path) -> Record:
    """Reads a file.

    Raises:
      UserError: there is none, or it is no record.
    """
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.") from error
    header = found.get("header") if isinstance(found, dict) else None
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(header, dict) or not isinstance(rows, list):
        raise UserError(
            f"{path} is not what `python -m benchmarks --json` writes: "
            "it has no header and rows."
        )
    for i, row in enumerate(rows):
        lacking = [n for n in _NAMES if not isinstance(row, dict) or n not in row]
        if lacking:
            raise UserError(f"{path}: row {i} has no {lacking[0]}.")
    return Record(header, rows)


def _commit() -> str:
    """The checkout's, with "-dirty" where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
