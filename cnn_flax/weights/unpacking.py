"""NumPy's archives, within limits: a small file may claim, or unpack to, terabytes."""

import io
import math
import sys
import zipfile
from collections.abc import Callable, Sequence
from typing import IO, BinaryIO

import numpy as np

__all__ = [
    "TooLargeError",
    "allow_bytes",
    "array_names",
    "most_bytes",
    "read_array_header",
    "read_arrays",
]

# By default a file may unpack to this many bytes, and to this many times its own size.
_BYTES = 2**26
_TIMES = 32

_MOST_AXES = 64  # Of a NumPy array.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LONGEST_HEADER = 10_000  # Bytes, as in NumPy.

_ReadHeader = Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype]]
# Version -> the width of the header's length in bytes, and what reads the header.
_HEADERS: dict[tuple[int, ...], tuple[int, _ReadHeader]] = {
    (1, 0): (2, np.lib.format.read_array_header_1_0),
    (2, 0): (4, np.lib.format.read_array_header_2_0),
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
        for entry in entries.values():
            if entry.compress_type not in _METHODS:  # LZMA may ask for gigabytes.
                raise ValueError(
                    f"it is compressed by method {entry.compress_type} of zip; NumPy "
                    "stores or deflates"
                )
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
        shape, dtype, start = read_array_header(file)
    if not dtype.hasobject:  # NumPy refuses objects.
        _check_size(shape, dtype, entry.file_size - start)
    with archive.open(entry) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    if dtype.kind == "U" and array.size:
        _check_text(array)
    return array


def read_array_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and length in bytes of the header that an array's file begins with.

    NumPy alone makes room for a header of up to 4 GB before it looks at it, and divides
    by the size of a dtype without any.

    Raises:
      ValueError: if it is no such header, or no array can be like that.
    """
    head = file.read(8)
    if head[:6] != b"\x93NUMPY":
        raise ValueError("it is no array of NumPy's")
    version = tuple(head[6:])
    if version not in _HEADERS:
        raise ValueError(f"it has the version {version} of NumPy's format")
    width, read_header = _HEADERS[version]
    size = file.read(width)
    length = int.from_bytes(size, "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header of {length:,} bytes is too long")
    header = io.BytesIO(size + file.read(length))
    try:
        shape, _, dtype = read_header(header)
    except (MemoryError, RecursionError):  # Of Python's parser.
        raise ValueError("its header is nested too deeply") from None
    counts = len(shape) <= _MOST_AXES and all(0 <= n < 2**63 for n in shape)
    if not counts or not dtype.itemsize:
        raise ValueError("its header has no shape or dtype of an array")
    return shape, dtype, len(head) + width + length


def _check_text(array: np.ndarray) -> None:
    # NumPy keeps any 32 bits as a character; Python has no strings of them.
    order = array.dtype.str[0]
    codes = np.frombuffer(array.tobytes(), f"{order}u4")
    if codes.max() > sys.maxunicode:
        raise ValueError("it holds text that is no Unicode")


def _check_size(shape: tuple[int, ...], dtype: np.dtype, size: int) -> None:
    said = math.prod(shape) * dtype.itemsize
    if said != size:
        raise ValueError(f"it holds {size:,} bytes, but its header says {said:,}"[:120])
