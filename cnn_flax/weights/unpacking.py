"""NumPy's archives, within limits: a small file may claim, or unpack to, terabytes."""

import math
import zipfile
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np

__all__ = ["TooLargeError", "allow_bytes", "array_names", "most_bytes", "read_arrays"]

# By default a file may unpack to this many bytes, and to this many times its own size.
_BYTES = 2**26
_TIMES = 32

_MOST_AXES = 64  # Of a NumPy array.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

_allowed = 0


class TooLargeError(ValueError):
    """A file would unpack to more bytes than it may."""

    def __init__(self, found: int, most: int, advice: str) -> None:
        super().__init__(
            f"it unpacks to {found:,} bytes, and at most {most:,} are allowed for its "
            f"size{advice}"
        )


def allow_bytes(count: int) -> None:
    """Lets files unpack to `count` bytes, if that is more than by default.

    The limit is the process's; a lower one than before has no effect.
    """
    global _allowed
    _allowed = max(_allowed, count)


def most_bytes(size: int) -> int:
    """The most bytes that a file of `size` bytes may unpack to."""
    return max(_allowed, _BYTES + _TIMES * size)


def array_names(file: BinaryIO) -> list[str]:
    """The names of the arrays of a `.npz`; may raise whatever `zipfile` does."""
    with zipfile.ZipFile(file) as archive:
        return [entry.removesuffix(".npy") for entry in archive.namelist()]


def read_arrays(
    file: BinaryIO,
    names: Sequence[str] | None = None,
    *,
    most: int | None = None,
    advice: str = "",
) -> dict[str, np.ndarray]:
    """Reads arrays of a `.npz`, whose sizes are checked before anything is unpacked.

    On a damaged file, `zipfile`, its decompressors and NumPy raise nearly anything.

    Args:
      file: the file.
      names: the arrays to read; None for all.
      most: the most bytes that they may have together; None for `most_bytes`.
      advice: ends the message of a file that is too large: how to allow more.

    Raises:
      TooLargeError: if they have more.
      KeyError: if there is no such array.
      ValueError: if an array is not as large as its header says, or holds objects.
    """
    with zipfile.ZipFile(file) as archive:
        if names is None:
            names = [entry.removesuffix(".npy") for entry in archive.namelist()]
        entries = {name: _entry(archive, name) for name in names}
        total = sum(entry.file_size for entry in entries.values())
        if most is None:
            most = most_bytes(file.seek(0, 2))
        if total > most:
            raise TooLargeError(total, most, advice)
        return {name: _read(archive, entry) for name, entry in entries.items()}


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    entries = archive.namelist()
    return archive.getinfo(name if name in entries else f"{name}.npy")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header: Callable[..., tuple[tuple[int, ...], bool, np.dtype]] | None
        read_header = _HEADERS.get(version)
        if read_header is None:
            raise ValueError(f"it has the version {version} of NumPy's format")
        shape, _, dtype = read_header(file)
        start = file.tell()
    if not dtype.hasobject:  # NumPy refuses objects.
        _check_size(shape, dtype, entry.file_size - start)
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _check_size(shape: tuple[int, ...], dtype: np.dtype, size: int) -> None:
    counts = len(shape) <= _MOST_AXES and all(0 <= n < 2**63 for n in shape)
    if not counts or not dtype.itemsize:
        raise ValueError("its header has no shape or dtype of an array")
    said = math.prod(shape) * dtype.itemsize
    if said != size:
        raise ValueError(f"it holds {size:,} bytes, but its header says {said:,}"[:120])
