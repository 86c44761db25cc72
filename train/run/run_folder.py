"""A run's folder: its files, its lock, and the disk space that it needs.

`config.json` says what the run is, `metrics.jsonl` holds its metrics, one JSON object
per line, and `checkpoints` its checkpoints. `result.json` holds the final figures and
marks the run as ended.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train.config import Config, may_change
from train.config_file import config_from_json, flag_values
from train.errors import StorageError, UserError
from train.storage import (
    DISK_FULL,
    read_json,
    remove_abandoned,
    try_lock,
    write_json,
)

__all__ = [
    "check_same_flags",
    "check_same_run",
    "check_space",
    "check_there",
    "check_whole",
    "extend",
    "lock",
    "read_result",
    "storing",
    "whole_result",
    "write_record",
    "write_result",
]

Json = dict[str, Any]

# What the table of a run's result needs.
_FIELDS = {
    **dict.fromkeys(("loss", "accuracy", "calibration_error"), float),
    **dict.fromkeys(("seconds", "images_per_second"), float),
    **dict.fromkeys(("classes", "test_images", "unreadable_images"), int),
    **dict.fromkeys(("parameters", "epochs", "steps"), int),
    "split": str,
}
_OPTIONAL = dict.fromkeys(
    (
        "top5_accuracy",
        "balanced_accuracy",
        "mean_average_precision",
        "ema_loss",
        "ema_accuracy",
    ),
    float,
)

# What is written under the lock of a run, or of a Noisy Student, next to caches.
_OWN = (
    *("config.json", "metrics.jsonl", "result.json", "temperature.json"),
    *("noisy_student.json", "labelling_times.json", "report.json"),
)

_SHOWN = 3  # Number of differing flags that a message names.
_LONGEST = 120  # Characters of a flag's value in it.


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Locks the run against other processes; creates the folder if needed.

    Raises:
      UserError: if another process holds the lock, or the folder is not writable.
      StorageError: if the disk is full.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise _not_writable(run, error) from error
    with file:
        if not try_lock(file):
            file.seek(0)
            process = file.read().partition("\n")[0]
            raise UserError(
                f"{run} is in use by process {process}: end that process first, or use "
                "another --out."
            )
        try:
            file.truncate(0)
            # With a token, by which other hosts know that it is this lock that they
            # see. Not buffered: closing the file would write what a full disk refused.
            text = f"{os.getpid()}\n{secrets.token_hex()}\n"
            os.write(file.fileno(), text.encode())
            os.fsync(file.fileno())  # Network file systems send on closing, or on this.
            for name in _OWN:
                remove_abandoned(run / name)
        except OSError as error:
            raise _not_writable(run, error) from error
        yield


def check_space(run: Path, checkpoint: int, keep: int) -> None:
    """Raises `UserError` if the disk has too little space for the checkpoints.

    Args:
      run: the run's folder, which need not exist yet.
      checkpoint: size of one checkpoint, in bytes.
      keep: number of checkpoints that the run keeps; during a save there is one more.
    """
    existing = next(path for path in (run, *run.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    needed = (keep + 1 - min(len(_checkpoints(run)), keep)) * checkpoint
    if free < needed:
        raise UserError(
            f"The disk of {run} has too little space: {_megabytes(free)} are free, and "
            f"{_megabytes(needed)} are needed for checkpoints of "
            f"{_megabytes(checkpoint)}."
        )


def check_whole(run: Path) -> None:
    """Raises `UserError` if `checkpoints` is not a folder."""
    checkpoints = run / "checkpoints"
    if os.path.lexists(checkpoints) and not checkpoints.is_dir():
        raise UserError(f"{checkpoints} must be a folder, and is none: move it away.")


@contextlib.contextmanager
def storing(run: Path) -> Iterator[None]:
    """Turns the errors of a full disk, or of a folder that is gone, into ours.

    Raises:
      StorageError: if the disk is full.
      UserError: if the run's folder was removed or moved.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        # tensorstore, which writes the arrays, gives the number in its message only.
        match = re.search(r"os_error_code='(\d+)'", str(error))
        number = error.errno if isinstance(error, OSError) else match and int(match[1])
        if number not in DISK_FULL:
            missing = isinstance(error, FileNotFoundError) or "NOT_FOUND" in str(error)
            needed = run / "config.json", run / "checkpoints"
            if missing and not all(path.exists() for path in needed):
                raise _gone(run) from error
            raise
        last = max(_checkpoints(run), default=0)
        raise StorageError(
            f"{run} cannot be written to: {os.strerror(number)}. It keeps the "
            f"checkpoint of step {last}.",
            number,
        ) from error


def check_there(run: Path) -> None:
    """Raises `UserError` if a run's folder was removed or moved while it was trained.

    Orbax would make it again, without what it held.
    """
    if not (run / "config.json").is_file():
        raise _gone(run)


def write_record(run: Path, record: Json) -> None:
    """Writes `config.json`, which makes the folder a run's.

    Raises:
      UserError: if the folder is not writable.
      StorageError: if the disk is full.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "config.json", record)
    except OSError as error:
        raise _not_writable(run, error) from error


def check_same_run(
    run: Path, record: Json, recipe: str, config: Config, *, extend: bool = False
) -> None:
    """Raises `UserError` if the folder holds a run of another recipe or other flags.

    Args:
      run: the folder.
      record: the contents of its `config.json`.
      recipe: name of the requested recipe.
      config: the requested config.
      extend: whether it may have more epochs.
    """
    old = {"recipe": record["recipe"]}
    old |= flag_values(config_from_json(record["config"]))
    new = {"recipe": recipe, **flag_values(config)}
    if new["epochs"] > old["epochs"]:
        if extend:
            old["epochs"] = new["epochs"]
        elif _differing(old, new) == ["epochs"]:
            raise UserError(
                f"{run} holds a run of {old['epochs']} epochs. To train it for "
                f"{new['epochs']}, add --extend."
            )
    check_same_flags(run, old, new)


def check_same_flags(run: Path, old: Json, new: Json) -> None:
    """Raises `UserError` if flags differ from those that a folder's run began with.

    Flags that may change when a run is resumed are not compared.

    Args:
      run: the folder.
      old: `recipe` and the values of the run's flags, by the names of their fields.
      new: the requested ones, in the same form.
    """
    differences = [
        f"{'' if name == 'recipe' else '--'}{name.replace('_', '-')} "
        f"is {_plain(old[name])} there and {_plain(new[name])} here"
        for name in _differing(old, new)
    ]
    if differences:
        left = len(differences) - _SHOWN
        more = f"; and {left} more" if left > 0 else ""
        raise UserError(
            f"{run} holds another run: {'; '.join(differences[:_SHOWN])}{more}. Use "
            "another --out, or the same flags to resume that run."
        )


def _differing(old: Json, new: Json) -> list[str]:
    """Names of the flags that differ, except for those that may change."""
    resumable = may_change()
    return [
        name
        for name, value in new.items()
        if old[name] != value and name not in resumable
    ]


def read_result(run: Path) -> Json | None:
    """The final figures of a run that has ended; None otherwise.

    Raises:
      UserError: if they cannot be read.
    """
    return read_json(run / "result.json", {**_FIELDS, **_OPTIONAL}, whole=False)


def whole_result(run: Path) -> Json:
    """The final figures of a run that has ended.

    Raises:
      UserError: if one is missing.
    """
    result = read_json(run / "result.json", _FIELDS)
    if result is None:
        raise UserError(f"{run} has not ended.")
    return result


def extend(run: Path, record: Json, epochs: int) -> None:
    """Gives a run more epochs; keeps its result as `result-EPOCHS-epochs.json`.

    Args:
      run: the folder.
      record: the contents of its `config.json`.
      epochs: the new number of epochs.
    """
    old = record["config"]["epochs"]
    # First, so that a run with the new number of epochs never has the old result.
    with contextlib.suppress(FileNotFoundError):
        (run / "result.json").rename(run / f"result-{old}-epochs.json")
    config = {**record["config"], "epochs": epochs}
    write_record(run, {**record, "config": config})


def write_result(run: Path, result: Json) -> None:
    """Writes `result.json`, which marks the run as ended."""
    write_json(run / "result.json", result)


def _not_writable(run: Path, error: OSError) -> UserError | StorageError:
    message = f"{run} cannot be written to: {error.strerror}."
    if error.errno in DISK_FULL:
        return StorageError(message, error.errno)
    return UserError(message)


def _gone(run: Path) -> UserError:
    return UserError(
        f"{run} was removed or moved, or parts of it, while the run wrote into it: "
        "what it saved is no longer there."
    )


def _checkpoints(run: Path) -> list[int]:
    """The steps of all complete checkpoints."""
    return [int(p.name) for p in (run / "checkpoints").glob("*") if p.name.isdecimal()]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _plain(value: Any) -> str:
    """A flag's value as on the command line, in one line, and cut if it is long."""
    if isinstance(value, dict):
        value = [f"{name}={v}" for name, v in value.items()]
    if isinstance(value, list):
        value = " ".join(map(str, value)) or "nothing"
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
