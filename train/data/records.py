"""Records of TFRecord files by their number, without TensorFlow."""

import os
from collections.abc import Sequence

import numpy as np

__all__ = ["TFRecords"]

# A frame is the record's length (8 bytes, little-endian), a checksum of that (4), the
# record, and a checksum of the record (4).
_BEFORE = 12
_AFTER = 4


class TFRecords:
    """The records of a set's files, one file after the other, by their number.

    The frames of a file are looked up when its first record is asked for. The checksums
    are not looked at: what is damaged shows when the image is decoded.

    Args:
      paths: the files, in order.
      counts: number of records in each.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]) -> None:
        self._paths = paths
        self._starts = np.cumsum([0, *counts])
        self._frames: dict[str, list[tuple[int, int]]] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> bytes:
        """Record `index`; raises `EOFError` where its file is cut short before it."""
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        path, number = self._paths[file], index - int(self._starts[file])
        if path not in self._frames:
            self._frames[path] = _find_frames(path)
        frames = self._frames[path]
        if number >= len(frames):
            raise EOFError(f"{path} is cut short after {len(frames)} records")
        start, stop = frames[number]
        with open(path, "rb") as stream:
            stream.seek(start)
            return stream.read(stop - start)


def _find_frames(path: str) -> list[tuple[int, int]]:
    """Where each whole record of a file starts and stops, in bytes."""
    frames, position = [], 0
    with open(path, "rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        while position < size:
            stream.seek(position)
            start = position + _BEFORE
            stop = start + int.from_bytes(stream.read(8), "little")
            position = stop + _AFTER
            if position <= size:
                frames.append((start, stop))
    return frames
