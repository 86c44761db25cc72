"""Checkpoint files as dicts of numpy arrays, without torch and without running code."""

import functools
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors

from cnn_flax.weights import torch_file, torch_pickle
from cnn_flax.weights.errors import CheckpointError, name_of, reason_of
from cnn_flax.weights.shards import parse_index, read_shards
from cnn_flax.weights.torch_names import without_wrappers
from cnn_flax.weights.unpacking import read_arrays

__all__ = ["read_checkpoint"]

# Keys that programs save their state dicts under, in the order in which they are tried.
# Averaged weights come first, as in timm.
_WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict"),
    *("ema_model", "params_ema", "net_ema", "ema"),
    *("state_dict", "model_state_dict", "model", "net", "module"),
    *("net_state_dict", "model_state", "network", "params", "weights"),
)
_DEPTH = 4  # Of the dicts that a state dict is looked for in; one may contain itself.

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

_LONGEST = 1000  # Characters of a message.


def read_checkpoint(
    path: str | os.PathLike[str], *, max_bytes: int | None = None
) -> dict[str, np.ndarray]:
    """Reads a file of weights: safetensors, `.npz`, or a file of `torch.save`.

    Of weights in several files, name the index, such as
    `model.safetensors.index.json`; the shards are next to it.

    The format is detected from the content, not from the name. torch's zip archive and
    its older stream are both read without torch, and no code in them is run.

    A state dict that a training program saved inside a larger dict is found there, and
    the rest of that dict, which may hold anything, is ignored. Averaged weights come
    first, as in timm: of the keys that the file has, the first of "state_dict_ema",
    "model_ema", "ema_state_dict", "params_ema", "ema", "state_dict",
    "model_state_dict", "model", "net", "module" counts. If it has none of these and
    others, the only dict of tensors counts.

    The names are those of the net: what DataParallel ("module."), `torch.compile`
    ("_orig_mod.") and FSDP add to names is removed, as is the attribute that holds the
    net ("model.", "net.", "network.", "backbone." or "encoder.") if all names begin
    with it.

    Args:
      path: the file.
      max_bytes: the most bytes that a compressed `.npz` may unpack to; None for 64 MiB
        and 32 times the size of the file. The other formats take about twice the size
        of the file in memory; a compressed archive of torch's is refused, as torch
        compresses none.

    Returns:
      Arrays by name, with the file's dtypes; bfloat16 and float8 are those of
      ml_dtypes, which JAX uses.

    Raises:
      CheckpointError: if there is no such file, or it is not a checkpoint, is damaged
        or too large, or its state dict holds more than tensors; names what it holds.
        If a shard is missing, is not in the index's folder, or does not hold what the
        index says.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder; cnn_flax.load_pretrained takes one."
        )
    if not path.exists():
        raise CheckpointError(f"There is no file {path}.")
    if not path.is_file():
        raise CheckpointError(f"{path} is no regular file.")
    try:
        return without_wrappers(_read(path, max_bytes))
    except CheckpointError as error:
        reason = " ".join(str(error).split())  # Names in files may have breaks.
        raise CheckpointError(f"{path} {reason}."[:_LONGEST]) from error.__cause__
    except Exception as error:  # On damaged files the parsers raise nearly anything.
        raise CheckpointError(f"{path} cannot be read: {reason_of(error)}.") from error


def _read(path: pathlib.Path, max_bytes: int | None) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        if _is_json(head):
            read = functools.partial(_read_shard, max_bytes=max_bytes)
            return read_shards(parse_index(file.read()), path.parent, read)
        return _read_file(file, head, max_bytes)


def _read_shard(path: pathlib.Path, max_bytes: int | None) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        if _is_json(head):
            raise CheckpointError(f"names the shard {path.name}, which is an index too")
        try:
            return _read_file(file, head, max_bytes)
        except Exception as error:
            own = isinstance(error, CheckpointError)
            reason = str(error) if own else f"cannot be read: {reason_of(error)}"
            raise CheckpointError(f"cannot be read: {path.name} {reason}") from error


def _is_json(head: bytes) -> bool:
    # The length that safetensors begin with has zeros.
    return head.lstrip().startswith(b"{") and b"\0" not in head


def _read_file(
    file: BinaryIO, head: bytes, max_bytes: int | None
) -> dict[str, np.ndarray]:
    if not head:
        raise CheckpointError("is empty")
    # A length of 8 bytes, then JSON. The length may begin like the other formats.
    if head[8:9] == b"{":
        return _arrays(_read_safetensors(file), _numbers)
    if head.startswith(b"PK"):
        return _read_zip(file, max_bytes)
    if head.startswith(b"\x80"):  # A pickle's first instruction.
        return _read_torch(torch_file.read_stream(file))
    raise CheckpointError(
        f"is neither safetensors, .npz nor a file of torch's; it begins with {head!r}"
    )


def _read_zip(file: BinaryIO, max_bytes: int | None) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        if torch_file.is_torch_zip(archive):
            return _read_torch(torch_file.read_zip(archive))
        if not all(entry.endswith(".npy") for entry in archive.namelist()):
            raise CheckpointError("is a zip archive, but neither .npz nor torch's")
    advice = "; read_checkpoint(PATH, max_bytes=N) allows more"
    return _arrays(read_arrays(file, most=max_bytes, advice=advice), _numbers)


def _read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    arrays = {}
    for name, entry in safetensors.deserialize(file.read()):
        if entry["dtype"] not in _SAFETENSORS:
            dtype = entry["dtype"][:20]
            raise CheckpointError(f"holds {name_of(name)} in the dtype {dtype}")
        numbers = np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]])
        arrays[name] = numbers.reshape(entry["shape"])
    return arrays


def _numbers(x: np.ndarray) -> np.ndarray:
    if issubclass(x.dtype.type, np.flexible | np.datetime64 | np.timedelta64):
        raise CheckpointError(f"is of the dtype {str(x.dtype)[:80]}, no tensor")
    return x


def _read_torch(file: torch_file.TorchFile) -> dict[str, np.ndarray]:
    def array(leaf: Any) -> np.ndarray:
        if isinstance(leaf, torch_pickle.Unknown):
            raise CheckpointError(f"holds {leaf.what[:80]}; only tensors are read")
        if not isinstance(leaf, torch_pickle.Tensor):
            raise CheckpointError(f"is of the type {type(leaf).__name__}, no tensor")
        return file.array(leaf)

    return _arrays(file.tree, array)


def _arrays(tree: Any, array: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """Finds the state dict in what was saved; converts each leaf with `array`."""
    state_dict = _find(tree)
    if state_dict is None:
        state_dict = _nearest_to_one(tree)
    arrays = {}
    for name, leaf in state_dict.items():
        if isinstance(name, torch_pickle.Unknown):
            raise CheckpointError(
                f"cannot be read: a key is of the type {name.what[:80]}"
            )
        try:
            arrays[str(name)] = array(leaf)
        except CheckpointError as error:
            raise CheckpointError(f"holds {name_of(name)}, which {error}") from error
    return arrays


def _find(tree: Any, depth: int = _DEPTH) -> dict[Any, Any] | None:
    """The state dict in what was saved: a dict with tensors; None if none has any."""
    if not isinstance(tree, dict) or not depth:
        return None
    for key in _WRAPPERS:
        found = _find(tree.get(key), depth - 1)
        if found is not None:
            return found
    if any(map(_is_tensor, tree.values())):
        return tree
    if any(isinstance(tree.get(key), torch_pickle.Unknown) for key in _WRAPPERS):
        return None  # A whole module; tensors elsewhere are something else's.
    others = [
        inner
        for inner in tree.values()
        if isinstance(inner, dict) and inner and all(map(_is_tensor, inner.values()))
    ]
    return others[0] if len(others) == 1 else None


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch_pickle.Tensor | np.ndarray)


def _nearest_to_one(tree: Any) -> dict[Any, Any]:
    """The dict to say what is wrong with, where there is no state dict."""
    for _ in range(_DEPTH):
        if isinstance(tree, torch_pickle.Unknown):
            raise CheckpointError(
                f"holds {tree.what[:80]}; only tensors are read: save the state_dict() "
                "of a module"
            )
        if not isinstance(tree, dict):
            raise CheckpointError(f"holds a {type(tree).__name__}, no dict of tensors")
        inner = [tree[key] for key in _WRAPPERS if key in tree]
        kinds = dict | torch_pickle.Unknown
        tree = next((x for x in inner if isinstance(x, kinds)), tree)
    if not tree:
        raise CheckpointError("holds no tensors")
    return tree
