"""`python -m train pseudo-label`: labels images with a run, into a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from train.compilation_cache import use_compilation_cache
from train.console import percent, say
from train.errors import UserError

if TYPE_CHECKING:
    from train.data import Source
    from train.data.pseudo_label_file import PseudoLabels

__all__ = ["PseudoLabel", "pseudo_label_table"]

_BAR = 20  # Characters of a bar that stands for all images.
_ENDS = 10  # Of many classes, the most and the least frequent ones are shown.


@dataclass(frozen=True)
class PseudoLabel:
    """Labels images with a run's last checkpoint, into a file to train on.

    Started again with the same flags, it resumes where it was stopped. The file is a
    NumPy array of probabilities, float32 [n, K], one row per image, NaN for an image
    that cannot be read; FILE.json is its header. Training decides whether labels are
    soft or hard, and which of them are used: --pseudo-labels FILE.
    """

    run: Positional[Path]
    """Folder of the run: the teacher."""
    data: str
    """Data source as for a run, or files:PATH (all files below a folder), or the word
    rest: the run's training images that it did not use."""
    out: Path
    """The file."""
    split: Literal["train", "val", "test"] = "train"
    """Which of the images."""
    batch_size: int | None = None
    """Images per step; by default the run's."""
    ema: bool = False
    """Use the moving average of the weights, of a run with --ema-decay."""
    threads: int = 0
    """Threads that read images; by default the run's."""

    def __call__(self) -> None:
        """Runs the command."""
        if self.threads < 0:
            raise UserError(f"--threads must be at least 0, got {self.threads}.")
        use_compilation_cache()
        from train.run.labelling import label_images, open_images_to_label

        console = Console()
        source, opened = open_images_to_label(self.run, self.data, self.split)
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


def pseudo_label_table(title: str, labels: PseudoLabels, source: Source) -> Table:
    """The distribution of confidence and of classes, with accuracy if it is known.

    Args:
      title: what was labelled.
      labels: of n images.
      source: these images; if their labels are of the teacher's classes, accuracy is
        measured by them.
    """
    from train.data.pseudo_label_file import predictions

    names = labels.header["class_names"]
    classes, confidences = predictions(labels.probabilities)
    readable = labels.readable
    known = list(source.class_names) == names
    right = source.labels == classes if known else None
    table = Table("", "images", "share", title=escape(title), title_justify="left")
    if known:
        table.add_column("accuracy")
    table.add_column("", no_wrap=True)

    def row(name: str, among: np.ndarray) -> None:
        count, share = int(among.sum()), float(among.sum() / max(readable.sum(), 1))
        cells = [escape(name), f"{count:,}", percent(share)]
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
