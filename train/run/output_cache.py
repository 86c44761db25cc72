"""On-disk cache of a frozen model's outputs, one row per image."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_flax.weights.errors import reason_of
from train.data.source import Rows
from train.errors import UserError
from train.hosts import gather, is_leader
from train.learn.parallel import Placement
from train.storage import replacement

__all__ = ["cached_rows", "output_rows"]


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
    path: Path, room: Rows, rows: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Reads the rows from a file; writes it first, atomically, if it does not exist.

    Of several processes, the first writes it, and all iterate over the rows.

    Args:
      path: the file.
      room: an array of the shape and dtype of the result, one row per image.
      rows: from `output_rows`; only iterated if the file does not exist.

    Returns:
      The rows, memory-mapped; NaN for unreadable images.

    Raises:
      UserError: if the file is for another number of images.
    """
    exists = gather("yes" if path.exists() else "")[0]
    if not exists and not is_leader():
        for _ in rows:
            pass
    elif not exists:
        with replacement(path) as new:
            array = np.lib.format.open_memmap(
                new, "w+", dtype=room.dtype, shape=room.shape
            )
            array[:] = np.nan
            for index, part in rows:
                array[index] = part
            array.flush()
    gather("written")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # On a damaged header NumPy raises nearly anything.
        raise UserError(
            f"{path} cannot be read: {reason_of(error)}. Remove the file to compute it "
            "again."
        ) from error
    if array.shape != room.shape:
        raise UserError(
            f"{path} has the shape {list(array.shape)}, and the images need "
            f"{list(room.shape)}. Remove the file to compute it again."
        )
    return array
