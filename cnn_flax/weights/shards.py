"""Weights in several files, with the index that Hugging Face's libraries write."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cnn_flax.weights.errors import CheckpointError, listing_of, name_of

__all__ = ["Index", "parse_index", "read_shards"]


class Index(NamedTuple):
    """What an index says.

    Attributes:
      shards: the names of the tensors in each file, by its name.
      total_size: the size of all tensors in bytes, or None.
    """

    shards: dict[str, set[str]]
    total_size: int | None


def parse_index(text: bytes) -> Index:
    """Reads an index, such as `model.safetensors.index.json`.

    Raises:
      CheckpointError: if it is no index, or names a file outside its folder.
      ValueError: if it is no JSON.
    """
    index: Any = json.loads(text)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("is JSON, but no index of shards: it has no weight_map")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _is_file_name(shard):
            raise CheckpointError(
                f"names the shard {name_of(shard)}; shards are in the folder of their "
                "index"
            )
        shards.setdefault(shard, set()).add(name)
    metadata = index.get("metadata")
    total_size = metadata.get("total_size") if isinstance(metadata, dict) else None
    return Index(shards, total_size)


def _is_file_name(name: str) -> bool:
    """Whether a name has no folder, on any system."""
    both = (pathlib.PurePosixPath(name), pathlib.PureWindowsPath(name))
    return name not in ("", "..") and all(path.name == name for path in both)


def read_shards(
    index: Index,
    folder: pathlib.Path,
    read: Callable[[pathlib.Path], Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Reads the arrays of all shards; `read` reads one of them.

    Raises:
      CheckpointError: if a shard is missing, or holds other tensors than are listed.
    """
    # Not `Path.is_file`, which raises for names that are too long on Python 3.11.
    missing = [s for s in index.shards if not os.path.isfile(folder / s)]
    if missing:
        raise CheckpointError(
            f"needs {len(index.shards)} shards in its folder, of which {len(missing)} "
            f"are missing: {listing_of(map(name_of, missing))}"
        )
    arrays: dict[str, np.ndarray] = {}
    for shard, names in index.shards.items():
        found = read(folder / shard)
        different = sorted(names ^ found.keys())
        if different:
            where = "the shard has" if different[0] in found else "only the index has"
            raise CheckpointError(
                f"does not fit its shard {shard}: {where} {name_of(different[0])}"
            )
        arrays |= found
    size = sum(x.nbytes for x in arrays.values())
    if index.total_size not in (None, size):
        raise CheckpointError(
            f"states {name_of(index.total_size)} bytes of tensors; its shards hold "
            f"{size}"
        )
    return arrays
