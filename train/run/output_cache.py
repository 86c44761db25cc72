"""On-disk cache of a frozen model's outputs, one row per image.

The file is a NumPy array, followed by a digest of the model, of the images and of the
array itself, so that no other file of the same shape is taken for it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_flax.weights.errors import reason_of
from train.data.pseudo_label_file import images_digest
from train.data.source import Rows, Source
from train.errors import UserError
from train.hosts import gather, is_leader
from train.learn.parallel import Placement
from train.storage import allocate, map_array, remove_abandoned, replacement

__all__ = ["cached_rows", "cache_key", "output_rows"]

_CHUNK_BYTES = 2**22


def cache_key(variables: Any, source: Source, *options: Any) -> str:
    """Identifies outputs: by a model's variables, the images and how they are read.

    Args:
      variables: the model's variables, on this host.
      source: the images.
      options: whatever else the outputs depend on, as JSON.
    """
    digest = hashlib.sha256(json.dumps(options).encode())
    digest.update((source.digest or images_digest(source)).encode())
    for path, leaf in jax.tree.leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def output_rows(
    step: Callable[[jax.Array], jax.Array],
    batches: Iterable[Mapping[str, Any]],
    placement: Placement | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the indices and outputs of the readable images, batch by batch.

    Args:
      step: maps pixels `uint8 [N, H, W, C]` to rows `[N, ...]`.
      batches: batches from `train.data.eval_batches`.
      placement: where the batches are, if they may be on several processes; each yields
        the rows of all.
    """
    fetch = placement.fetch if placement else lambda tree: tree
    for batch in batches:
        tree = fetch((step(batch["image"]), batch["index"], batch["mask"]))
        rows, index, mask = map(np.asarray, tree)
        yield index[mask > 0], rows[mask > 0]


def cached_rows(
    path: Path,
    room: Rows,
    rows: Iterable[tuple[np.ndarray, np.ndarray]],
    key: str = "",
) -> np.ndarray:
    """Reads the rows from a file; writes it first, atomically, if it does not exist.

    A file without a digest, by an older version, is written again.

    Of several processes, the first writes it, and all iterate over the rows.

    Args:
      path: the file.
      room: an array of the shape and dtype of the result, one row per image.
      rows: from `output_rows`; only iterated if the file does not exist.
      key: from `cache_key`.

    Returns:
      The rows, memory-mapped; NaN for unreadable images.

    Raises:
      UserError: if the file is for another number of images, of another model or of
        other images, or was changed.
    """
    exists = gather("yes" if path.exists() and not _is_old(path, room) else "")[0]
    if not exists and not is_leader():
        for _ in rows:
            pass
    elif not exists:
        remove_abandoned(path)
        with replacement(path) as new:
            _allocate(new, room)
            array = np.load(new, mmap_mode="r+")
            array[:] = np.nan
            for index, part in rows:
                array[index] = part
            array.flush()
            digest = _digest(array, key)
            del array
            with new.open("ab") as file:
                file.write(digest)
    gather("written")
    array, wrong = _open(path, room)
    # One process reads the whole file for all.
    if (
        array is not None
        and is_leader()
        and _footer(path, array) != _digest(array, key)
    ):
        wrong = "is of another model or of other images than this run's, or was changed"
    wrong = next(filter(None, gather(wrong)), "")
    if array is None or wrong:
        raise UserError(f"{path} {wrong}. Remove the file to compute it again.")
    return array


def _allocate(path: Path, room: Rows) -> None:
    """Writes an array's header, and allocates the disk space of its rows.

    Where a disk has no more space for a page of a memory map, the process is killed.

    Raises:
      OSError: if the disk is full.
    """
    dtype = np.dtype(room.dtype)
    fields = {"descr": dtype.str, "fortran_order": False, "shape": room.shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, fields)
        allocate(file, file.tell() + math.prod(room.shape) * dtype.itemsize)


def _open(path: Path, room: Rows) -> tuple[np.ndarray | None, str]:
    """The array in a file, or what is wrong with it."""
    try:
        array = map_array(path)
    except Exception as error:  # On a damaged header NumPy raises nearly anything.
        return None, f"cannot be read: {reason_of(error)}"
    if array.shape != room.shape:
        shapes = list(array.shape), list(room.shape)
        return None, f"has the shape {shapes[0]}, and the images need {shapes[1]}"
    return array, ""


def _is_old(path: Path, room: Rows) -> bool:
    """Whether a file of these rows has no digest."""
    array, _ = _open(path, room)  # Whoever reads it says what is wrong.
    return array is not None and not _footer(path, array)


def _footer(path: Path, array: np.ndarray) -> bytes:
    """What follows the array in its file."""
    start = getattr(array, "offset", 0) + array.nbytes
    with path.open("rb") as file:
        file.seek(start)
        return file.read(100)


def _digest(array: np.ndarray, key: str) -> bytes:
    """A digest of the rows, the model and the images, 32 bytes."""
    digest = hashlib.sha256(f"{key} {array.dtype} {array.shape}".encode())
    count = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), count):
        digest.update(np.ascontiguousarray(array[start : start + count]).data)
    return digest.digest()
