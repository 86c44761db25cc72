"""Unlabelled images: all files below a folder."""

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from train.data.decode import load_image
from train.data.image_folder import probe_files
from train.data.listing import enclosing, list_files
from train.data.source import Source, SourceError, Splits

__all__ = ["files"]


def files(path: str) -> Splits:
    """Every file below `PATH`, sorted by path: unlabelled images, without splits.

    Hidden files, editors' backups and what systems leave behind are passed over. Each
    folder is listed once, even where links lead to it again; only a few of the files
    are opened.

    Raises:
      SourceError: if there is no such folder, it cannot be read, or no image is in it.
    """
    spec = f"files:{path}"
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise SourceError(f"{spec}: no such folder")
    return {"train": lambda: _open(spec, root)}


def _open(spec: str, root: Path) -> Source:
    names = _CompactPaths(str(root), list_files(spec, root, enclosing(root)))
    if not names:
        raise SourceError(f"{spec}: no file in it")
    channels, size = probe_files(spec, names)
    return Source(
        spec,
        (),
        len(names),
        example=lambda i, target_side: (load_image(names[i], target_side), -1),
        name=names.__getitem__,
        find_labels=lambda: np.full(len(names), -1, np.int32),
        channels=channels,
        native_size=size,
    )


class _CompactPaths(Sequence[str]):
    """A sequence of paths, stored as one string of bytes and 8 bytes per path."""

    def __init__(self, root: str, paths: Iterator[bytes]) -> None:
        self._root = root
        characters, bounds = bytearray(), array("q", [0])
        for path in paths:
            characters += path
            bounds.append(len(characters))
        self._bytes, self._bounds = bytes(characters), bounds

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index):
        path = self._bytes[self._bounds[index] : self._bounds[index + 1]]
        return os.path.join(self._root, os.fsdecode(path))
