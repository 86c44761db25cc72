"""Writes the report of a run or an evaluation, without risk to its result."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from train.console import say
from train.data import Source
from train.run.evaluation import AnyEvaluation
from train.run.metrics import read_metrics
from train.run.run_folder import read_result
from train.storage import replace_file

__all__ = ["PAGE", "report_run", "reporting", "write_report"]

PAGE = "report.html"  # Name of the page in a run's folder.


def report_run(
    run: Path,
    record: Mapping[str, Any],
    evaluation: AnyEvaluation,
    source: Source,
    console: Console,
    *,
    path: Path | None = None,
    split: str | None = None,
    note: str = "",
) -> None:
    """Writes the report of a run.

    Args:
      run: the run's folder.
      record: the contents of its `config.json`.
      evaluation: the evaluation of the images.
      source: the images.
      console: prints the path of the page.
      path: of the page; None for `report.html` in the run's folder.
      split: the split that the images are; None for that which the run evaluates on.
      note: what was evaluated, if that is not the run as it was trained.
    """
    # A failure to draw must not be one to import either.
    with reporting(f"{path or run / PAGE} could not be written", console):
        from train.run.report import Report

        report = Report(
            evaluation=evaluation,
            source=source,
            split=split or record["config"].get("selection", {}).get("eval_split", ""),
            model=record["model"]["name"],
            run=run,
            record=record,
            lines=read_metrics(run),
            result=read_result(run),
            note=note,
        )
        write_report(report, path or run / PAGE, console)


def write_report(report: Any, path: Path, console: Console) -> None:
    """Writes a `train.run.report.Report` to a file; whatever fails is one line.

    Args:
      report: the report.
      path: of the page.
      console: prints the path, or what went wrong.
    """
    with reporting(f"{path} could not be written", console):
        from train.run.report import report_page

        replace_file(path, report_page(report, partial(say, console)))
        say(console, f"Report: {path}")


@contextlib.contextmanager
def reporting(failure: str, console: Console) -> Iterator[None]:
    """Reports whatever goes wrong in one line, and continues.

    Args:
      failure: what the line says before the error.
      console: prints the line.
    """
    try:
        yield
    except Exception as error:
        say(console, f"{failure}: {type(error).__name__}: {error}")
