"""Files that appear under their names only when they are complete."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Writes files of one folder, and renames them when all are complete.

    If the disk is full or the program is killed, the old files are still there.

    Raises:
      OSError: if a file cannot be written.
    """
    (parent,) = {path.parent for path in files}
    # Not `NamedTemporaryFile`, whose files only the user can read.
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        for path, data in files.items():
            Path(folder, path.name).write_bytes(data)
        for path in files:
            Path(folder, path.name).replace(path)
