"""`python -m train compare`: several runs in one picture and one table."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from train.config_file import load_record
from train.console import literal, percent, say
from train.errors import UserError

__all__ = ["Compare", "compare", "comparison_table"]

Json = dict[str, Any]


@dataclass(frozen=True)
class Compare:
    """Plots the curves of several runs in one picture, and prints their figures."""

    runs: Positional[tuple[Path, ...]]
    """Folders of the runs."""
    out: Path = Path("comparison.png")
    """The picture."""

    def __call__(self) -> None:
        """Runs the command."""
        if not self.runs:
            raise UserError("No run was given: python -m train compare DIR DIR ...")
        compare(self.runs, self.out, Console())


def compare(runs: Sequence[Path], out: Path, console: Console) -> None:
    """Prints the latest and best figures of runs, and plots their curves.

    Without matplotlib, a line says how to install it instead of the picture.

    Args:
      runs: their folders.
      out: path of the picture, with an extension that matplotlib knows.
      console: prints the table.

    Raises:
      UserError: if a folder holds no run, or the picture cannot be written.
    """
    from train.run.metrics import read_metrics

    logs = {
        label: (load_record(run), read_metrics(run))
        for label, run in zip(_labels(runs), runs, strict=True)
    }
    console.print(comparison_table(logs))
    try:
        from train.run import plots
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        from cnn_flax.installing import install_command

        say(console, f"For a picture of the runs: {install_command('plots')}")
        return
    figure = plots.comparison({label: lines for label, (_, lines) in logs.items()})
    try:
        plots.save(figure, out)
    except (OSError, ValueError) as error:  # ValueError: an unknown extension.
        raise UserError(f"{out} cannot be written: {error}.") from error
    say(console, str(out))


def comparison_table(
    runs: Mapping[str, tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]],
) -> Table:
    """The figures of runs, one row per run.

    Args:
      runs: maps a run's label to the contents of its `config.json` and its
        `metrics.jsonl`.
    """
    table = Table("run", "model", "epochs", "loss", "accuracy", "best accuracy")
    for label, (record, lines) in runs.items():
        evaluated = [line for line in lines if line["split"] != "train"]
        figures = ["", "", ""]
        if evaluated:
            best = max(evaluated, key=lambda line: line["accuracy"])
            figures = [
                f"{evaluated[-1]['loss']:.4f}",
                percent(evaluated[-1]["accuracy"]),
                f"{percent(best['accuracy'])} (epoch {best['epoch']:g})",
            ]
        epoch = f"{lines[-1]['epoch']:g}" if lines else "0"
        epochs = f"{epoch} of {record['config']['epochs']}"
        model = record["model"]["name"]
        table.add_row(literal(label), model, epochs, *figures)
    return table


def _labels(runs: Sequence[Path]) -> list[str]:
    """The folders' paths without their common part."""
    if len({run.absolute() for run in runs}) < len(runs):
        raise UserError("A run was given twice.")
    common = os.path.commonpath([run.absolute().parent for run in runs])
    return [os.path.relpath(run.absolute(), common) for run in runs]
