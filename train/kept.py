"""What a model that stays as it is makes of each image: computed once, kept on disk."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.errors import UserError

__all__ = ["kept_rows", "rows_of"]


def rows_of(
    step: Callable[[jax.Array], jax.Array], batches: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices and rows, a batch at a time, of the images that can be read.

    Args:
      step: from pixels `uint8 [N, H, W, C]` to rows `[N, ...]`.
      batches: from `train.data.eval_batches`.
    """
    for batch in batches:
        rows, readable = np.asarray(step(batch["image"])), np.asarray(batch["mask"]) > 0
        yield np.asarray(batch["index"])[readable], rows[readable]


def kept_rows(
    path: Path, room: np.ndarray, found: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """The rows in a file, which is written first if it is not there: whole, or not.

    Args:
      path: the file.
      room: an array of the shape and dtype that they are to have, a row an image.
      found: what `rows_of` gives; it is asked only where the file is not there.

    Returns:
      The rows, each read when it is wanted; NaN where an image cannot be read.

    Raises:
      UserError: if the file is of other images, by their number.
    """
    if not path.exists():
        new = path.with_name(f".{path.name}.new")
        rows = np.lib.format.open_memmap(new, "w+", dtype=room.dtype, shape=room.shape)
        rows[:] = np.nan
        for index, part in found:
            rows[index] = part
        rows.flush()
        os.replace(new, path)
    rows = np.load(path, mmap_mode="r")
    if rows.shape != room.shape:
        raise UserError(
            f"{path} has the shape {list(rows.shape)}, and the images want "
            f"{list(room.shape)}. Remove it, and it is made again."
        )
    return rows
