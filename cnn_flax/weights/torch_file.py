"""torch's two file formats: the zip archive, and the older stream."""

import dataclasses
import functools
import io
import os
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes  # noqa: F401  It registers the narrow floats with numpy.
import numpy as np

from cnn_flax.weights import torch_pickle
from cnn_flax.weights.errors import CheckpointError, name_of

__all__ = ["TorchFile", "is_torch_zip", "read_stream", "read_zip"]

# What a stream's first two pickles hold.
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

_PICKLE = "data.pkl"
_MOST_AXES = 64  # Of a NumPy array, and of torch's.


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """The content of a torch file.

    Attributes:
      tree: what was saved, with a `torch_pickle.Tensor` for each tensor.
      storage: from a key to the bytes of its storage, uint8 `[n]`.
      big_endian: whether the numbers in the storages are big-endian.
    """

    tree: Any
    storage: Callable[[str], np.ndarray]
    big_endian: bool = False
    _reversed: dict[tuple[str, int], np.ndarray] = dataclasses.field(
        default_factory=dict, repr=False
    )

    def array(self, tensor: torch_pickle.Tensor) -> np.ndarray:
        """The tensor as an array; tensors that share a storage in torch share it here.

        Raises:
          CheckpointError: if it extends beyond its storage.
        """
        part = tensor.storage
        size = np.dtype(part.dtype).itemsize
        dtype = np.dtype(tensor.dtype)
        _check_counts(part.start, part.size)
        raw = self.storage(part.key)
        if self.big_endian:
            width = dtype.itemsize // (2 if dtype.kind == "c" else 1)
            raw = self._little_endian(part.key, width)
        raw = raw[part.start * size :][: part.size * size]
        _check_bounds(tensor, len(raw) // dtype.itemsize)
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        offset = tensor.offset * dtype.itemsize
        if 0 in tensor.shape:
            return np.empty(tensor.shape, dtype)
        return np.ndarray(tensor.shape, dtype, raw, offset, strides)

    def _little_endian(self, key: str, width: int) -> np.ndarray:
        """A storage with the bytes of each number reversed; made once per width."""
        known = self._reversed
        if (key, width) not in known:
            raw = self.storage(key)
            raw = raw[: len(raw) // width * width].reshape(-1, width)
            known[key, width] = np.ascontiguousarray(raw[:, ::-1]).reshape(-1)
        return known[key, width]


def is_torch_zip(archive: zipfile.ZipFile) -> bool:
    """Whether an archive is one of torch's."""
    return any(_is_pickle(entry) for entry in archive.namelist())


def read_zip(archive: zipfile.ZipFile) -> TorchFile:
    """Reads the format that torch has written since version 1.6.

    The tree may be damaged or hold anything; see `torch_pickle.load`.

    Raises:
      CheckpointError: if tensors are compressed, which torch's never are, or overlap: a
        small file would fill the memory.
    """
    entry = next(filter(_is_pickle, archive.namelist()))
    root = entry.removesuffix(_PICKLE)
    entries = [
        x
        for x in archive.infolist()
        if x.filename in (entry, f"{root}byteorder")
        or x.filename.startswith(f"{root}data/")
    ]
    compressed = [x for x in entries if x.compress_type != zipfile.ZIP_STORED]
    if compressed:
        raise CheckpointError(
            f"has the compressed entry {name_of(compressed[0].filename)}, and torch "
            "compresses no tensors"
        )
    size = os.fstat(archive.fp.fileno()).st_size if archive.fp else 0
    if sum(x.file_size for x in entries) > size:
        raise CheckpointError("has entries that are larger than the file")
    pickle = torch_pickle.load(io.BytesIO(archive.read(entry)))
    order = f"{root}byteorder"
    big_endian = order in archive.namelist() and archive.read(order) == b"big"

    @functools.cache
    def storage(key: str) -> np.ndarray:
        return _writable(archive.read(f"{root}data/{key}"))

    return TorchFile(pickle.tree, storage, big_endian)


def read_stream(file: BinaryIO) -> TorchFile:
    """Reads the format that torch wrote before version 1.6: pickles, then storages.

    Raises:
      CheckpointError: if torch did not write it.
    """
    stream = io.BytesIO(file.read())
    if torch_pickle.load(stream).tree != _MAGIC_NUMBER:
        raise CheckpointError("is a pickle, but not one that torch wrote")
    if torch_pickle.load(stream).tree != _PROTOCOL:
        raise CheckpointError(f"is of another protocol of torch's than {_PROTOCOL}")
    torch_pickle.load(stream)  # The machine; all write little-endian numbers.
    pickle = torch_pickle.load(stream)
    storages = {}
    keys = torch_pickle.load(stream).tree
    if not isinstance(keys, list | tuple) or not all(type(k) is str for k in keys):
        raise CheckpointError("has no list of its storages")
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * np.dtype(pickle.storages[key].dtype).itemsize
        storages[key] = _writable(stream.read(max(size, 0)))
    return TorchFile(pickle.tree, storages.__getitem__)


def _is_pickle(entry: str) -> bool:
    return entry.rpartition("/")[2] == _PICKLE


def _writable(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), np.uint8)


def _check_counts(*numbers: Any) -> None:
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise CheckpointError("has an offset, a size or a stride that is no count")


def _check_bounds(tensor: torch_pickle.Tensor, count: int) -> None:
    if len(tensor.shape) > _MOST_AXES:
        raise CheckpointError(f"has {len(tensor.shape)} axes; arrays have up to 64")
    _check_counts(tensor.offset, *tensor.shape, *tensor.strides)
    if max(tensor.shape, default=0) >= 2**63:
        raise CheckpointError("cannot be read: its sizes are no 64-bit integers")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if last >= count and 0 not in tensor.shape:
        raise CheckpointError(
            f"reaches number {last} of a storage that has {count} of them"
        )
