"""Which files and folders below a folder count, each listed once."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from train.data.source import SourceError

__all__ = [
    "Folders",
    "enclosing",
    "folder_names",
    "identity",
    "list_files",
    "visit",
]

Folders = set[tuple[int, int]]  # By their `identity`.

# What systems, and programs that pack or show files, leave behind; in lower case.
_LEFT_BEHIND = {
    b"$recycle.bin",
    b"@eadir",
    b"__macosx",
    b"desktop.ini",
    b"ehthumbs.db",
    b"icon\r",
    b"lost+found",
    b"picasa.ini",
    b"system volume information",
    b"thumbs.db",
}


def folder_names(spec: str, folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted; hidden ones do not count.

    Raises:
      SourceError: if it cannot be read.
    """
    with _readable(spec):
        names = _names(os.fsencode(folder))
    return [os.fsdecode(name[:-1]) for name in names if name.endswith(b"/")]


def list_files(spec: str, folder: Path, visited: Folders) -> Iterator[bytes]:
    """Yields the paths of all files below a folder, relative to it and sorted.

    Hidden files, backups of editors, what systems leave behind, FIFOs, sockets and
    devices do not count.

    Args:
      spec: what the user wrote, for messages.
      folder: the folder.
      visited: folders that are not listed if a link leads to them; those that are
        listed are added.

    Raises:
      SourceError: if a folder cannot be read.
    """
    with _readable(spec):
        yield from _walk(os.fsencode(folder), b"", visited)


def _walk(folder: bytes, prefix: bytes, visited: Folders) -> Iterator[bytes]:
    for name in _names(folder):
        if not name.endswith(b"/"):
            yield prefix + name
        elif visit(inner := folder + b"/" + name[:-1], visited):
            yield from _walk(inner, prefix + name, visited)


def _names(folder: bytes) -> list[bytes]:
    """What counts in a folder, sorted; folders end with a slash."""
    with os.scandir(folder) as entries:
        # With its slash, a folder sorts where the paths of its files do.
        return sorted(
            entry.name + b"/" if _is_folder(entry) else entry.name
            for entry in entries
            if not _is_special(entry)
            and not entry.name.startswith(b".")
            and entry.name.lower() not in _LEFT_BEHIND
            and not (_is_backup(entry.name) and entry.is_file())
        )


def _is_backup(name: bytes) -> bool:
    """Whether an editor calls its backups so."""
    is_in_use = name.startswith(b"#") and name.endswith(b"#")
    return is_in_use or name.endswith((b"~", b".bak"))


def _is_special(entry: os.DirEntry[bytes]) -> bool:
    """Whether it is a FIFO, a socket or a device, which may never end; no link."""
    kinds = (entry.is_symlink, entry.is_file, entry.is_dir)
    return not any(is_kind() for is_kind in kinds)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


@contextlib.contextmanager
def _readable(spec: str) -> Iterator[None]:
    """Turns the error of a folder that cannot be read into ours."""
    try:
        yield
    except OSError as error:
        folder = os.fsdecode(error.filename)
        message = f"{spec}: {folder} cannot be read: {error.strerror}"
        raise SourceError(message) from None


def visit(folder: bytes | Path, visited: Folders) -> bool:
    """Adds a folder to those visited; False if it is one of them."""
    if (found := identity(folder)) in visited:
        return False
    visited.add(found)
    return True


def identity(folder: bytes | Path) -> tuple[int, int]:
    """Device and inode number, the same for all links to a folder."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def enclosing(path: Path) -> Folders:
    """A path, if it exists, and the folders that it lies in, links followed or not."""
    ways = path.absolute(), path.resolve()
    places = {place for way in ways for place in (way, *way.parents)}
    return {identity(place) for place in places if place.exists()}
