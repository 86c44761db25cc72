"""What lies in a run's folder beside its checkpoints.

`config.json`: what the run is. `metrics.jsonl`: what it measured on its way, a JSON
object a line. `result.json`: how it ended; there when it has.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from train.config import MAY_CHANGE, Config, config_from_json, flat
from train.errors import StorageError, UserError

__all__ = [
    "FULL",
    "MetricsLog",
    "check_same",
    "check_same_flags",
    "check_space",
    "lock",
    "read_metrics",
    "read_record",
    "read_result",
    "replace_file",
    "storing",
    "write_json",
    "write_record",
    "write_result",
]

Json = dict[str, Any]

_NAMED = 3  # How many of the fields that differ a message names.


# Errors of a disk that takes no more: writing may fail of them, but reading never.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Keeps other processes from the run; makes the folder if need be.

    The operating system ends the lock with the process, however that ends.

    Raises:
      UserError: if another process has it, or the folder cannot be written to.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise _not_writable(run, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"{run} is being worked on by process {file.read().strip()}: end that "
                "one first, or take another --out."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def check_space(run: Path, checkpoint: int, keep: int) -> None:
    """Raises `UserError` where the disk has no room for the run's checkpoints.

    Args:
      run: the folder, which need not be there yet.
      checkpoint: size of one, in bytes.
      keep: number of them that are kept; while one is written there is one more.
    """
    there = next(path for path in (run, *run.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    needed = (keep + 1 - min(len(_checkpoints(run)), keep)) * checkpoint
    if free < needed:
        raise UserError(
            f"{run} has not enough space: {_megabytes(free)} are free, and "
            f"{_megabytes(needed)} are needed for checkpoints of "
            f"{_megabytes(checkpoint)}."
        )


@contextlib.contextmanager
def storing(run: Path) -> Iterator[None]:
    """Turns the errors of a full disk, and the like, into `StorageError`."""
    try:
        yield
    except (OSError, ValueError) as error:
        # tensorstore, which writes the arrays, has the number in its message only.
        told = re.search(r"os_error_code='(\d+)'", str(error))
        number = error.errno if isinstance(error, OSError) else told and int(told[1])
        if number not in FULL:
            raise
        last = max(_checkpoints(run), default=0)
        raise StorageError(
            f"{run} cannot be written to: {os.strerror(number)}. It keeps the "
            f"checkpoint of step {last}."
        ) from error


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
        write_json(run / "config.json", record)
    except OSError as error:
        raise _not_writable(run, error) from error


def check_same(run: Path, record: Json, recipe: str, config: Config) -> None:
    """Raises `UserError` where the folder's run is another one than this.

    Args:
      run: the folder.
      record: what its `config.json` holds.
      recipe: the recipe that is to be run.
      config: the config that is to be run.
    """
    there = {"recipe": record["recipe"], **flat(config_from_json(record["config"]))}
    check_same_flags(run, there, {"recipe": recipe, **flat(config)})


def check_same_flags(run: Path, there: Json, here: Json) -> None:
    """Raises `UserError` where flags are not those that a folder's run began with.

    Args:
      run: the folder.
      there: the name of its recipe, and its flags without their dashes.
      here: the same of what is to be run.
    """
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
    write_json(run / "result.json", result)


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
        replace_file(path, "".join(_line(line) for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line, which holds its `step`; it is on its way to disk on return."""
        self._file.write(_line(line))
        self._file.flush()


def _not_writable(run: Path, error: OSError) -> UserError:
    return UserError(f"{run} cannot be written to: {error.strerror}.")


def _checkpoints(run: Path) -> list[int]:
    """The steps of the checkpoints that are whole."""
    return [int(p.name) for p in (run / "checkpoints").glob("*") if p.name.isdecimal()]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _line(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"


def _read(path: Path) -> Json | None:
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def write_json(path: Path, tree: Json) -> None:
    """Writes a file so that whoever looks finds the old one or the new one, whole."""
    replace_file(path, json.dumps(tree, indent=2) + "\n")


def replace_file(path: Path, text: str) -> None:
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
