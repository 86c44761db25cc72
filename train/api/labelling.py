"""`train.pseudo_label`: labels images with a run, into a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from train.api.result import Result
from train.console import literal, percent, say
from train.errors import UserError

if TYPE_CHECKING:
    from train.data import Source
    from train.data.pseudo_label_file import PseudoLabels

__all__ = ["PseudoLabelResult", "pseudo_label", "pseudo_label_table"]

_BAR = 20  # Length of a bar for all images, in characters.
_ENDS = 10  # With many classes, this many of the most and the least frequent show.


@dataclass(frozen=True, repr=False)
class PseudoLabelResult(Result):
    """Labels that a run gave.

    `paths` has `labels`, the file, or for shards the folder. For a file, `figures` are
    `images`, `unreadable`, the mean `confidence` and, if the images have labels of the
    same classes, `accuracy`; for shards, `shards`, the number in this worker's part.

    Attributes:
      labels: the contents of the file; None for shards.
      source: the images; None for shards.
    """

    labels: PseudoLabels | None = None
    source: Source | None = None

    def table(self) -> Table:
        """The distributions of confidence and of classes."""
        if self.labels is None or self.source is None:
            return super().table()
        return pseudo_label_table(self.title, self.labels, self.source)


def pseudo_label(
    run: Path | str,
    data: str,
    out: Path | str,
    *,
    shards: str = "",
    top: int | None = None,
    split: Literal["train", "val", "test"] | None = None,
    batch_size: int | None = None,
    ema: bool = False,
    threads: int = 0,
    max_pixels: int = 0,
    max_unpacked_bytes: int = 0,
    quiet: bool = False,
) -> PseudoLabelResult:
    """Labels images with a run's last checkpoint: `python -m train pseudo-label`.

    The same call resumes after it was stopped; a finished file is only opened. To train
    on the labels, give the config `unlabelled=data` and `pseudo_labels=out`.

    Args:
      run: the run's folder: the teacher.
      data: data source as for a run, or `files:PATH`, all files below a folder; or
        `rest`, the training images that the run left out; or `shards:PATTERN`.
      out: the file to write, an array float32 `[n, K]`; with shards, the folder.
      shards: with shards: label the part `I/N` of them, I from 0 to N - 1; all by
        default.
      top: with shards: number of most probable classes to keep of each image; None
        for 8.
      split: split of the data; None for `train`. Shards have none.
      batch_size: images per step; None for the run's.
      ema: whether to use the moving average of the weights.
      threads: number of threads that read images; 0 for the run's.
      max_pixels: allow images of up to this many pixels, if that is more than Pillow's
        limit.
      max_unpacked_bytes: allow the arrays of a compressed npz or idx file to have up to
        this many bytes, if that is more than 64 MiB and 32 times its size.
      quiet: whether to print nothing.

    Raises:
      UserError: if the folder holds no run, the file is something else, or the
        arguments do not fit together.
      SourceError, BadImagesError: if the images do not exist, or too many cannot be
        read; both are `UserError`.
      StorageError: if the disk is full; the labels so far are saved.
    """
    run, out = Path(run), Path(out)
    if threads < 0:
        raise UserError(f"--threads must be at least 0, got {threads}.")
    is_sharded = data.startswith("shards:")
    part = _part(shards)
    if shards and not is_sharded:
        raise UserError(f"--shards {shards} needs --data shards:PATTERN.")
    if top is not None and not is_sharded:
        raise UserError(f"--top {top} needs --data shards:PATTERN.")
    if split and is_sharded:
        raise UserError(f"--split {split}: shards have no splits.")
    from cnn_flax.weights.preprocessing import allow_pixels
    from cnn_flax.weights.unpacking import allow_bytes
    from train.run.labelling import label_images, open_images_to_label

    allow_pixels(max_pixels)
    allow_bytes(max_unpacked_bytes)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "ema": ema,
        "threads": threads or None,
        "say": partial(say, Console(quiet=quiet, force_jupyter=False)),
    }
    if is_sharded:
        if top is not None:
            options["top"] = top
        return _label_shards(run, data, out, part, options)
    source, opened = open_images_to_label(run, data, split or "train")
    labels = label_images(run, source, out, opened=opened, **options)
    title = f"{out}: {source.spec} by {run}"
    figures = _figures(labels, source)
    return PseudoLabelResult(title, figures, {"labels": out}, labels, source)


def _label_shards(
    run: Path, data: str, out: Path, part: tuple[int, int], options: dict[str, Any]
) -> PseudoLabelResult:
    from train.data.shards import list_shards
    from train.run.shard_labelling import ShardLabeller, label_shards

    say: Callable[[str], None] = options["say"]
    shards = list_shards(data).part(*part)
    label_shards(ShardLabeller(run, out, **options), shards, say)
    title = f"{out}: {data} by {run}"
    return PseudoLabelResult(title, {"shards": len(shards)}, {"labels": out})


def _part(text: str) -> tuple[int, int]:
    """I and N of `--shards I/N`; 0 and 1 if it is empty."""
    index, _, count = (text or "0/1").partition("/")
    if index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return int(index), int(count)
    raise UserError(f"--shards must be I/N with I from 0 to N - 1, got {text}.")


def _figures(labels: PseudoLabels, source: Source) -> dict[str, Any]:
    from train.data.pseudo_label_file import predictions

    readable = labels.readable
    classes, confidences = predictions(labels.probabilities)
    figures: dict[str, Any] = {
        "images": len(readable),
        "unreadable": int((~readable).sum()),
    }
    if readable.any():
        figures["confidence"] = float(confidences[readable].mean())
        if list(source.class_names) == labels.header["class_names"]:
            right = source.labels[readable] == classes[readable]
            figures["accuracy"] = float(right.mean())
    return figures


def pseudo_label_table(title: str, labels: PseudoLabels, source: Source) -> Table:
    """The distributions of confidence and of classes, with accuracy if it is known.

    Args:
      title: names the images and the teacher.
      labels: labels of n images.
      source: these images; their own labels measure the accuracy if the classes are
        the teacher's.
    """
    from train.data.pseudo_label_file import predictions

    names = labels.header["class_names"]
    classes, confidences = predictions(labels.probabilities)
    readable = labels.readable
    has_labels = list(source.class_names) == names
    right = source.labels == classes if has_labels else None
    table = Table(
        "", "images", "share", title=literal(title, "table.title"), title_justify="left"
    )
    if has_labels:
        table.add_column("accuracy")
    table.add_column("", no_wrap=True)

    def row(name: str, among: np.ndarray) -> None:
        count, share = int(among.sum()), float(among.sum() / max(readable.sum(), 1))
        cells = [literal(name), f"{count:,}", percent(share)]
        if right is not None:
            cells.append(percent(right[among].mean()) if count else "")
        table.add_row(*cells, "█" * round(_BAR * share))

    row("all", readable)
    if not readable.all():
        table.add_row("unreadable", f"{(~readable).sum():,}")
    table.add_section()
    bins = np.clip(np.ceil(np.nan_to_num(confidences) * 10).astype(int) - 1, 0, 9)
    for k in range(10):
        among = readable & (bins == k)
        if among.any():
            row(f"confidence {k / 10:g} to {(k + 1) / 10:g}", among)
    table.add_section()
    counts = np.bincount(classes[readable], minlength=len(names))
    frequent = np.argsort(-counts, kind="stable")
    shown = range(len(names))
    if len(names) > 2 * _ENDS:
        shown = [*frequent[:_ENDS], *frequent[-_ENDS:]]
    for place, k in enumerate(shown):
        if len(shown) < len(names) and place == _ENDS:
            table.add_row(f"... {len(names) - len(shown):,} more classes ...")
        row(names[k], readable & (classes == k))
    return table
