"""torch's two file formats: the zip archive, and the older stream."""

import dataclasses
import functools
import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes  # noqa: F401  It registers the narrow floats with numpy.
import numpy as np

from cnn_flax.weights import torch_pickle
from cnn_flax.weights.errors import CheckpointError

__all__ = ["TorchFile", "is_torch_zip", "read_stream", "read_zip"]

# What a stream's first two pickles hold.
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

_PICKLE = "data.pkl"


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

    def array(self, tensor: torch_pickle.Tensor) -> np.ndarray:
        """The tensor as an array; tensors that share a storage in torch share it here.

        Raises:
          CheckpointError: if it extends beyond its storage.
        """
        part = tensor.storage
        size = np.dtype(part.dtype).itemsize
        raw = self.storage(part.key)[part.start * size :][: part.size * size]
        dtype = np.dtype(tensor.dtype)
        if self.big_endian:
            width = dtype.itemsize // (2 if dtype.kind == "c" else 1)
            raw = np.ascontiguousarray(raw.reshape(-1, width)[:, ::-1]).reshape(-1)
        _check_bounds(tensor, len(raw) // dtype.itemsize)
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        offset = tensor.offset * dtype.itemsize
        if 0 in tensor.shape:
            return np.empty(tensor.shape, dtype)
        return np.ndarray(tensor.shape, dtype, raw, offset, strides)


def is_torch_zip(archive: zipfile.ZipFile) -> bool:
    """Whether an archive is one of torch's."""
    return any(_is_pickle(entry) for entry in archive.namelist())


def read_zip(archive: zipfile.ZipFile) -> TorchFile:
    """Reads the format that torch has written since version 1.6.

    The tree may be damaged or hold anything; see `torch_pickle.load`.
    """
    entry = next(filter(_is_pickle, archive.namelist()))
    root = entry.removesuffix(_PICKLE)
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
    for key in torch_pickle.load(stream).tree:
        (count,) = struct.unpack("<q", stream.read(8))
        size = count * np.dtype(pickle.storages[key].dtype).itemsize
        storages[key] = _writable(stream.read(max(size, 0)))
    return TorchFile(pickle.tree, storages.__getitem__)


def _is_pickle(entry: str) -> bool:
    return entry.rpartition("/")[2] == _PICKLE


def _writable(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), np.uint8)


def _check_bounds(tensor: torch_pickle.Tensor, count: int) -> None:
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise CheckpointError("has an offset, a size or a stride that is no count")
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
    if last >= count and 0 not in tensor.shape:
        raise CheckpointError(
            f"reaches number {last} of a storage that has {count} of them"
        )
