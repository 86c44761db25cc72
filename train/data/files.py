"""Images without labels: all files below a folder."""

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from train.data.decode import load_image
from train.data.image_folder import probe
from train.data.source import Source, SourceError, Splits

__all__ = ["files"]


def files(path: str) -> Splits:
    """Every file below `PATH`, sorted by path: images without labels, not split.

    What is hidden is left out. Each folder is read once, one that links lead to again
    too; files are not looked at, but for a few of them.

    Raises:
      SourceError: the folder is not there, cannot be read, or has no image in it.
    """
    spec = f"files:{path}"
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise SourceError(f"{spec}: there is no such folder")
    return {"train": lambda: _open(spec, root)}


def _open(spec: str, root: Path) -> Source:
    try:
        names = _Names(str(root), _walk(os.fsencode(root), b"", set()))
    except OSError as error:
        where = os.fsdecode(error.filename)
        raise SourceError(f"{spec}: {where} cannot be read: {error.strerror}") from None
    if not names:
        raise SourceError(f"{spec}: there is no file in it")
    channels, size = probe(spec, names)
    return Source(
        spec,
        (),
        len(names),
        example=lambda i, least: (load_image(names[i], least), -1),
        name=names.__getitem__,
        find_labels=lambda: np.full(len(names), -1, np.int32),
        channels=channels,
        native_size=size,
    )


def _walk(folder: bytes, inside: bytes, met: set[tuple[int, int]]) -> Iterator[bytes]:
    """The files' paths from the root on, sorted; `inside` is the folder's own."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in met:
        return
    met.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        # With its slash, a folder is where its files' paths belong.
        names = sorted(
            entry.name + b"/" if entry.is_dir() else entry.name
            for entry in entries
            if not entry.name.startswith(b".")
        )
    for name in names:
        if name.endswith(b"/"):
            yield from _walk(folder + b"/" + name[:-1], inside + name, met)
        else:
            yield inside + name


class _Names(Sequence[str]):
    """Paths of files, in little more memory than their letters take."""

    def __init__(self, root: str, names: Iterator[bytes]) -> None:
        self._root = root
        letters, bounds = bytearray(), array("q", [0])
        for name in names:
            letters += name
            bounds.append(len(letters))
        self._letters, self._bounds = bytes(letters), bounds

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index):
        name = self._letters[self._bounds[index] : self._bounds[index + 1]]
        return os.path.join(self._root, os.fsdecode(name))
