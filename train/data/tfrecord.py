"""Random access to the records of TFRecord files, without TensorFlow."""

import os
from collections.abc import Sequence

import numpy as np

__all__ = ["TFRecords"]

# A frame is the record's length (8 bytes, little-endian), a checksum of the length (4),
# the record, and a checksum of the record (4).
_HEADER_BYTES = 12
_FOOTER_BYTES = 4


class TFRecords:
    """The records of a list of files, as one sequence.

    A file's frames are located when one of its records is first read. Checksums are not
    verified: damage shows when the image is decoded.

    Args:
      paths: the files, in order.
      counts: number of records per file.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]) -> None:
        self._paths = paths
        self._starts = np.cumsum([0, *counts])
        self._frames: dict[str, list[tuple[int, int]]] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> bytes:
        """Record `index`; raises `EOFError` if its file is truncated before it."""
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        path, number = self._paths[file], index - int(self._starts[file])
        if path not in self._frames:
            self._frames[path] = _find_frames(path)
        frames = self._frames[path]
        if number >= len(frames):
            raise EOFError(f"{path} is truncated after {len(frames)} records")
        start, stop = frames[number]
        with open(path, "rb") as stream:
            stream.seek(start)
            return stream.read(stop - start)


def _find_frames(path: str) -> list[tuple[int, int]]:
    """Start and stop of each complete record of a file, in bytes."""
    frames, position = [], 0
    with open(path, "rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        while position < size:
            stream.seek(position)
            start = position + _HEADER_BYTES
            stop = start + int.from_bytes(stream.read(8), "little")
            position = stop + _FOOTER_BYTES
            if position <= size:
                frames.append((start, stop))
    return frames
