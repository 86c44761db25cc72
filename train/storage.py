"""Files on disk: atomic writes, locks, preallocation, and errors of full disks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from train.errors import StorageError, UserError

if TYPE_CHECKING:
    import numpy as np

try:
    import fcntl
except ModuleNotFoundError:  # Windows, which `train.commands.main` refuses.
    fcntl = None

__all__ = [
    "DISK_FULL",
    "allocate",
    "create_file",
    "map_array",
    "read_json",
    "remove_abandoned",
    "replace_file",
    "replacement",
    "storing",
    "try_lock",
    "write_json",
]

# Errors of a disk that accepts no more data; only writes fail with them.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

# Errors of file systems that have no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)

_ZEROS = bytes(2**20)


def read_json(
    path: Path, fields: Mapping[str, Any] | None = None, *, whole: bool = True
) -> Any:
    """The JSON in a file; None if the file does not exist.

    Args:
      path: the file.
      fields: what it must have; see `cnn_flax.weights.fields.wrong_field`.
      whole: whether all of these fields must be there.

    Raises:
      UserError: if it cannot be read, or its fields are not these.
    """
    from cnn_flax.weights.errors import reason_of
    from cnn_flax.weights.fields import wrong_field

    if not path.exists():
        return None
    if not path.is_file():
        raise UserError(f"{path} is no regular file.")
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}.") from error
    wrong = wrong_field(tree, fields, whole=whole) if fields else ""
    if wrong:
        raise UserError(f"{path} is damaged: {wrong}.")
    return tree


def map_array(path: Path) -> np.ndarray:
    """Memory-maps the array in a file of NumPy's.

    Raises:
      Exception: of nearly any type, if the file holds something else or is damaged.
    """
    import numpy as np

    from cnn_flax.weights.unpacking import read_array_header

    if not path.is_file():
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        read_array_header(file)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def write_json(path: Path, tree: Any) -> None:
    """Writes JSON atomically: readers see the old file or the new one."""
    replace_file(path, json.dumps(tree, indent=2) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Writes text atomically: readers see the old file or the new one."""
    with replacement(path) as new:
        new.write_text(text, "utf-8", "backslashreplace")


def create_file(path: Path, text: str) -> bool:
    """Writes text atomically unless the file exists: of several writers, one wins.

    Returns:
      Whether this call created the file.
    """
    new = _temporary(path)
    try:
        new.write_text(text, "utf-8", "backslashreplace")
        try:
            os.link(new, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_without_links(path, new.read_bytes())
    finally:
        new.unlink(missing_ok=True)
    return True


def _create_without_links(path: Path, data: bytes) -> bool:
    """One writer still wins, but readers may see the file before its contents."""
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        return False
    try:
        with file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """A new file that replaces `path` at the end, or is removed after an error.

    Its name is unique, so that several writers do not disturb each other: the last one
    to finish wins.
    """
    new = _temporary(path)
    try:
        yield new
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Removes what killed writers left of a file that they were to replace.

    The caller must be its only writer now, by a lock.
    """
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+-[0-9a-f]{{8}}\.new")
    for file in path.parent.iterdir():
        if name.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A hidden name next to a file, unique among threads, processes and hosts."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.new")


def try_lock(file: IO[Any]) -> bool:
    """Locks an open file against other processes; False if another one holds the lock.

    The operating system releases the lock when the process ends, even if it is killed.
    """
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def allocate(file: IO[bytes], size: int) -> None:
    """Reserves at least `size` bytes on disk for an open file; its contents stay.

    Raises:
      OSError: if the disk has too little space.
    """
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    # macOS has no such call: append zeros.
    position, end = file.tell(), file.seek(0, os.SEEK_END)
    while end < size:
        end += file.write(_ZEROS[: size - end])
    file.flush()
    file.seek(position)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns errors of the operating system on writing a file into ours."""
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be written to: {error.strerror}."
        if error.errno in DISK_FULL:
            raise StorageError(message, error.errno) from error
        raise UserError(message) from error
