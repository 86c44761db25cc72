"""`python -m train compare`: several runs on one page and in one table."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from train.config_file import load_record
from train.console import literal, program_name, say
from train.errors import UserError
from train.storage import replace_file

if TYPE_CHECKING:
    from train.run.comparison import Runs

__all__ = ["Compare", "compare", "comparison_table"]


@dataclass(frozen=True)
class Compare:
    """Shows the curves and figures of several runs on one page, and what differs."""

    runs: Positional[tuple[Path, ...]]
    """Folders of the runs."""
    out: Path = Path("comparison.html")
    """The page; with another extension, such as .png, a picture of the curves."""

    def __call__(self) -> None:
        """Runs the command."""
        if not self.runs:
            raise UserError(f"No run was given: {program_name()} compare DIR DIR ...")
        compare(self.runs, self.out, Console())


def compare(runs: Sequence[Path], out: Path, console: Console) -> None:
    """Prints the latest and best figures of runs, and writes the page or the picture.

    Args:
      runs: their folders.
      out: path of the page, `.html`, or of a picture of the curves, with an extension
        that matplotlib knows.
      console: prints the table.

    Raises:
      UserError: if a folder holds no run, or the file cannot be written.
    """
    from train.run.comparison import comparison_page
    from train.run.metrics import read_metrics

    logs = {
        label: (load_record(run), read_metrics(run))
        for label, run in zip(_labels(runs), runs, strict=True)
    }
    console.print(comparison_table(logs))
    try:
        if out.suffix.lower() in (".html", ".htm"):
            replace_file(out, comparison_page(logs))
        elif importlib.util.find_spec("matplotlib") is None:
            from cnn_flax.installing import install_command

            return say(console, f"For a picture: {install_command('plots')}")
        else:
            _draw({label: lines for label, (_, lines) in logs.items()}, out)
    except (OSError, ValueError) as error:  # ValueError: an unknown extension.
        raise UserError(f"{out} cannot be written: {error}.") from error
    say(console, str(out))


def _draw(lines: Mapping[str, Sequence[Mapping[str, Any]]], out: Path) -> None:
    from train.run import plots

    plots.save(plots.comparison(lines), out)


def comparison_table(runs: "Runs") -> Table:
    """The figures of runs, one row per run.

    Args:
      runs: maps a run's label to the contents of its `config.json` and its
        `metrics.jsonl`.
    """
    from train.run.comparison import HEADER, comparison_rows

    table = Table(*HEADER)
    for label, *figures in comparison_rows(runs):
        table.add_row(literal(label), *figures)
    return table


def _labels(runs: Sequence[Path]) -> list[str]:
    """The folders' paths without their common part."""
    if len({run.absolute() for run in runs}) < len(runs):
        raise UserError("A run was given twice.")
    common = os.path.commonpath([run.absolute().parent for run in runs])
    return [os.path.relpath(run.absolute(), common) for run in runs]
