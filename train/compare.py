"""Runs over each other, in one picture and one table."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from train.errors import UserError
from train.folder import Json, read_metrics, read_record
from train.report import comparison_table, say

__all__ = ["compare"]


def compare(runs: Sequence[Path], out: Path, console: Console) -> None:
    """Prints how the runs did so far, and draws their curves where matplotlib is.

    Args:
      runs: their folders.
      out: the picture, a file whose ending matplotlib knows.
      console: where the table goes.

    Raises:
      UserError: if a folder holds no run, or the picture cannot be written.
    """
    found: dict[str, tuple[Json, list[Json]]] = {}
    for label, run in zip(_labels(runs), runs, strict=True):
        record = read_record(run)
        if record is None:
            raise UserError(f"{run} holds no run.")
        found[label] = record, read_metrics(run)
    console.print(comparison_table(found))
    try:
        from train import plots
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        say(console, "For a picture of the runs: pip install 'cnn-flax[plots]'")
        return
    figure = plots.comparison({label: lines for label, (_, lines) in found.items()})
    try:
        figure.savefig(out)
    except (OSError, ValueError) as error:  # ValueError: an ending that it has not.
        raise UserError(f"{out} cannot be written: {error}.") from error
    say(console, str(out))


def _labels(runs: Sequence[Path]) -> list[str]:
    """What tells the folders apart: their paths without what all have in common."""
    if len({run.absolute() for run in runs}) < len(runs):
        raise UserError("A run was given twice.")
    common = os.path.commonpath([run.absolute().parent for run in runs])
    return [os.path.relpath(run.absolute(), common) for run in runs]
