"""Files on disk: written whole or not at all, locked, allocated; and full disks."""

import errno
import json
import os
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ModuleNotFoundError:  # Windows, which `train.commands.main` refuses.
    fcntl = None

__all__ = [
    "DISK_FULL",
    "allocate",
    "read_json",
    "replace_file",
    "try_lock",
    "write_json",
]

# Errors of a disk that takes no more: writing may fail with them, reading never does.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

_ZEROS = bytes(2**20)


def read_json(path: Path) -> Any:
    """The JSON in a file, or None where there is no such file."""
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def write_json(path: Path, tree: Any) -> None:
    """Writes JSON atomically: a reader finds the old file or the new one."""
    replace_file(path, json.dumps(tree, indent=2) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Writes a file atomically: a reader finds the old file or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, "utf-8")
    os.replace(new, path)


def try_lock(file: IO[Any]) -> bool:
    """Locks an open file against other processes; False if another one has the lock.

    The operating system releases the lock when the process ends, however it ends.
    """
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def allocate(file: IO[bytes], size: int) -> None:
    """Gives an open file at least `size` bytes on disk; what it holds is unchanged.

    Raises:
      OSError: if the disk has no room for them.
    """
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    # macOS has no such call: zeros are written to the end.
    position, end = file.tell(), file.seek(0, os.SEEK_END)
    while end < size:
        end += file.write(_ZEROS[: size - end])
    file.flush()
    file.seek(position)
