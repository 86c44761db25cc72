"""`python -m train pseudo-label`: writes a run's labels for images to a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from train.compilation_cache import use_compilation_cache
from train.console import literal, percent, say
from train.errors import UserError

if TYPE_CHECKING:
    from train.data import Source
    from train.data.pseudo_label_file import PseudoLabels

__all__ = ["PseudoLabel", "pseudo_label_table"]

_BAR = 20  # Length of a bar for all images, in characters.
_ENDS = 10  # With many classes, this many of the most and the least frequent show.


@dataclass(frozen=True)
class PseudoLabel:
    """Labels images with a run's last checkpoint, for --pseudo-labels.

    The same command resumes after it was stopped. The file is a NumPy array of
    probabilities, float32 [n, K], one row per image, NaN for an image that cannot be
    read; FILE.json is its header. With --data shards:... it is a folder, with one file
    of the most probable classes per shard; workers share it, each with its --shards
    I/N. The flags of training decide whether the labels are soft or hard, and which of
    them are used.
    """

    run: Positional[Path]
    """Folder of the run: the teacher."""
    data: str
    """Data source as for a run, or files:PATH (all files below a folder), or the word
    rest: the training images that the run left out. Or shards:PATTERN, such as
    shards:/data/*.tar, or shards:@FILE, a file with one shard per line: tar,
    array_record, parquet, or txt (one image file per line)."""
    out: Path
    """The file to write; with shards, the folder."""
    shards: str = ""
    """With shards: label the part I/N of them, I from 0 to N - 1; all by default."""
    top: int | None = None
    """With shards: number of most probable classes to keep of each image; 8 by
    default."""
    split: Literal["train", "val", "test"] | None = None
    """Split of the data, train by default; shards have none."""
    batch_size: int | None = None
    """Images per step; by default the run's."""
    ema: bool = False
    """Use the moving average of the weights of a run with --ema-decay."""
    threads: int = 0
    """Threads that read images; 0 for as many as the run uses."""
    max_pixels: int = 0
    """Allow images of up to this many pixels, if that is more than Pillow's limit."""

    def __call__(self) -> None:
        """Runs the command."""
        if self.threads < 0:
            raise UserError(f"--threads must be at least 0, got {self.threads}.")
        is_sharded = self.data.startswith("shards:")
        part = _part(self.shards)
        if self.shards and not is_sharded:
            raise UserError(f"--shards {self.shards} needs --data shards:PATTERN.")
        if self.top is not None and not is_sharded:
            raise UserError(f"--top {self.top} needs --data shards:PATTERN.")
        if self.split and is_sharded:
            raise UserError(f"--split {self.split}: shards have no splits.")
        use_compilation_cache()
        from cnn_flax.weights.preprocessing import allow_pixels
        from train.run.labelling import label_images, open_images_to_label

        allow_pixels(self.max_pixels)
        console = Console()
        if is_sharded:
            self._label_shards(*part, partial(say, console))
            return
        source, opened = open_images_to_label(
            self.run, self.data, self.split or "train"
        )
        labels = label_images(
            self.run,
            source,
            self.out,
            batch_size=self.batch_size,
            ema=self.ema,
            threads=self.threads or None,
            opened=opened,
            say=partial(say, console),
        )
        title = f"{self.out}: {source.spec} by {self.run}"
        console.print(pseudo_label_table(title, labels, source))

    def _label_shards(self, index: int, count: int, say: Callable[[str], None]) -> None:
        from train.data.shards import list_shards
        from train.run.shard_labelling import ShardLabeller, label_shards

        shards = list_shards(self.data).part(index, count)
        labeller = ShardLabeller(
            self.run,
            self.out,
            **({} if self.top is None else {"top": self.top}),
            batch_size=self.batch_size,
            ema=self.ema,
            threads=self.threads or None,
            say=say,
        )
        label_shards(labeller, shards, say)


def _part(text: str) -> tuple[int, int]:
    """I and N of `--shards I/N`; 0 and 1 if it is empty."""
    index, _, count = (text or "0/1").partition("/")
    if index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return int(index), int(count)
    raise UserError(f"--shards must be I/N with I from 0 to N - 1, got {text}.")


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
