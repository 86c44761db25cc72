"""Checkpoint files as dicts of numpy arrays, without torch and without running code."""

import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors

from cnn_flax.weights import torch_file, torch_pickle
from cnn_flax.weights.errors import CheckpointError

__all__ = ["read_checkpoint"]

# Keys that programs save their state dicts under; averaged weights come first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
# Prefixes that DataParallel and `torch.compile` add to every name.
_PREFIXES = ("module.", "_orig_mod.")

_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}

# What the parsers raise on damaged files.
_DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError),
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(struct.error, zipfile.BadZipFile, zlib.error, safetensors.SafetensorError),
)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a file of weights: safetensors, `.npz`, or a file of `torch.save`.

    The format is detected from the content, not from the name. torch's zip archive and
    its older stream are both read without torch; no code in them is run, and a file
    that holds anything other than tensors is rejected.

    A state dict that a training program saved inside a larger dict is found there
    (under "state_dict", "model", "model_state_dict"; averaged weights, "state_dict_ema"
    or "model_ema", come first), and the rest of that dict is ignored. A prefix that
    DataParallel ("module.") or `torch.compile` added to all names is removed.

    Args:
      path: the file.

    Returns:
      Arrays by name, with the file's dtypes; bfloat16 and float8 are those of
      ml_dtypes, which JAX uses.

    Raises:
      CheckpointError: if there is no such file, or it is not a checkpoint, is damaged,
        or holds more than tensors; names what it holds.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder; cnn_flax.load_pretrained takes one."
        )
    if not path.exists():
        raise CheckpointError(f"There is no file {path}.")
    try:
        with path.open("rb") as file:
            return _read(file)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}.") from error.__cause__
    except _DAMAGE as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    head = file.read(16)
    file.seek(0)
    if not head:
        raise CheckpointError("is empty")
    # A length of 8 bytes, then JSON. The length may begin like the other formats.
    if head[8:9] == b"{":
        return _arrays(_read_safetensors(file), _numbers)
    if head.startswith(b"PK"):
        return _read_zip(file)
    if head.startswith(b"\x80"):  # A pickle's first instruction.
        return _read_torch(torch_file.read_stream(file))
    raise CheckpointError(
        f"is neither safetensors, .npz nor a file of torch's; it begins with {head!r}"
    )


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        if torch_file.is_torch_zip(archive):
            return _read_torch(torch_file.read_zip(archive))
        if not all(entry.endswith(".npy") for entry in archive.namelist()):
            raise CheckpointError("is a zip archive, but neither .npz nor torch's")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return _arrays(dict(arrays), _numbers)


def _read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    arrays = {}
    for name, entry in safetensors.deserialize(file.read()):
        if entry["dtype"] not in _SAFETENSORS:
            raise CheckpointError(f"holds {name!r} in the dtype {entry['dtype']}")
        numbers = np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]])
        arrays[name] = numbers.reshape(entry["shape"])
    return arrays


def _numbers(x: np.ndarray) -> np.ndarray:
    if issubclass(x.dtype.type, np.flexible | np.datetime64 | np.timedelta64):
        raise CheckpointError(f"is of the dtype {x.dtype}, no tensor")
    return x


def _read_torch(file: torch_file.TorchFile) -> dict[str, np.ndarray]:
    def array(leaf: Any) -> np.ndarray:
        if not isinstance(leaf, torch_pickle.Tensor):
            raise CheckpointError(f"is of the type {type(leaf).__name__}, no tensor")
        return file.array(leaf)

    return _arrays(file.tree, array)


def _arrays(tree: Any, array: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """Finds the state dict in what was saved; converts each leaf with `array`."""
    # Trainers nest wrappers; a dict may also contain itself, hence the limit.
    for _ in range(3):
        if not isinstance(tree, dict):
            raise CheckpointError(f"holds a {type(tree).__name__}, no dict of tensors")
        wrapped = [tree.get(key) for key in _WRAPPERS]
        tree = next((inner for inner in wrapped if isinstance(inner, dict)), tree)
    if not tree:
        raise CheckpointError("holds no tensors")
    state_dict = {}
    for name, leaf in tree.items():
        try:
            state_dict[str(name)] = array(leaf)
        except CheckpointError as error:
            raise CheckpointError(f"holds {name!r}, which {error}") from error
    return _without_prefix(state_dict)


def _without_prefix(state_dict: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state_dict):
            return _without_prefix(
                {name.removeprefix(prefix): x for name, x in state_dict.items()}
            )
    return state_dict
