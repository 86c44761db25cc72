"""What lies in a run's folder beside its checkpoints.

`config.json`: what the run is. `metrics.jsonl`: what it measured on its way, a JSON
object a line. `result.json`: how it ended; there when it has.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.config import MAY_CHANGE, Config, config_from_json, flat
from train.errors import UserError

__all__ = [
    "MetricsLog",
    "check_same",
    "read_metrics",
    "read_record",
    "read_result",
    "write_record",
    "write_result",
]

Json = dict[str, Any]

_NAMED = 3  # How many of the fields that differ a message names.


def read_record(run: Path) -> Json | None:
    """What `config.json` holds, or None where the folder is empty or not there.

    Raises:
      UserError: if the folder holds something else than a run.
    """
    record = _read(run / "config.json")
    if record is None and run.exists():
        if not run.is_dir():
            raise UserError(f"{run} is a file; a run needs a folder.")
        if any(not path.name.startswith(".") for path in run.iterdir()):
            raise UserError(
                f"{run} is not empty, and holds no run (there is no config.json)."
            )
    return record


def write_record(run: Path, record: Json) -> None:
    """Makes the folder a run's.

    Raises:
      UserError: if it cannot be written to.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        _write(run / "config.json", record)
    except OSError as error:
        raise UserError(f"{run} cannot be written to: {error.strerror}.") from error


def check_same(run: Path, record: Json, recipe: str, config: Config) -> None:
    """Raises `UserError` where the folder's run is another one than this.

    Args:
      run: the folder.
      record: what its `config.json` holds.
      recipe: the recipe that is to be run.
      config: the config that is to be run.
    """
    there = {"recipe": record["recipe"], **flat(config_from_json(record["config"]))}
    here = {"recipe": recipe, **flat(config)}
    named = [
        f"{'' if name == 'recipe' else '--'}{name.replace('_', '-')} "
        f"is {_plain(there[name])} there and {_plain(value)} here"
        for name, value in here.items()
        if there[name] != value and name not in MAY_CHANGE
    ]
    if named:
        more = f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        raise UserError(
            f"{run} holds another run: {'; '.join(named[:_NAMED])}{more}. Take another "
            "--out, or the same flags to go on with that run."
        )


def read_result(run: Path) -> Json | None:
    """The figures of a run that has ended, else None."""
    return _read(run / "result.json")


def write_result(run: Path, result: Json) -> None:
    """Marks the run as ended."""
    _write(run / "result.json", result)


def read_metrics(run: Path) -> list[Json]:
    """The lines of `metrics.jsonl`, without one that was cut short."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class MetricsLog:
    """Appends to `metrics.jsonl`."""

    def __init__(self, run: Path, step: int) -> None:
        """Opens the log of a run that goes on from a step.

        What was measured after it will be measured again, so those lines go.
        """
        path = run / "metrics.jsonl"
        kept = [line for line in read_metrics(run) if line["step"] <= step]
        _replace(path, "".join(_line(line) for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line, which holds its `step`; it is on its way to disk on return."""
        self._file.write(_line(line))
        self._file.flush()


def _line(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"


def _read(path: Path) -> Json | None:
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def _write(path: Path, tree: Json) -> None:
    _replace(path, json.dumps(tree, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    """Writes a file so that whoever looks finds the old one or the new one, whole."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, "utf-8")
    os.replace(new, path)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name}={v}" for name, v in value.items()]
    if isinstance(value, list):
        return " ".join(map(str, value)) or "nothing"
    return str(value)
