"""`train.fit`: trains a model, or resumes a run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from train.api.result import Result
from train.config import Config
from train.console import duration, figure_rows, literal, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FitResult", "fit", "result_table", "silent_orbax"]


@dataclass(frozen=True, repr=False)
class FitResult(Result):
    """A run that has ended.

    `figures` are the contents of its `result.json`: `accuracy`, `top5_accuracy`,
    `balanced_accuracy` and `loss` (in nats) on the images of `split`, with the prefix
    `ema_` those of the moving average; `calibration_error`, `parameters`, `epochs`,
    `steps`, `seconds`.
    `paths` has `run`, its folder, and the files in it by their names without ending.

    Attributes:
      config: the run's config.
      metrics: the lines of `metrics.jsonl`, in the order of steps: `step`, `epoch`,
        `split`, `loss`, `accuracy` and what the method adds.
    """

    config: Config
    metrics: list[dict[str, Any]]

    @property
    def run(self) -> Path:
        """The run's folder, which `evaluate`, `predict` and `pseudo_label` take."""
        return self.paths["run"]

    def table(self) -> Table:
        """The final figures."""
        return result_table(self.run, self.figures)

    def plots(self) -> dict[str, Figure]:
        """`learning_curves`: loss and accuracy over the epochs."""
        from train.run.plots import learning_curves

        return {"learning_curves": learning_curves(self.metrics, self.title)}


def fit(
    config: Config,
    out: Path | str,
    *,
    recipe: str = "",
    extend: bool = False,
    quiet: bool = False,
) -> FitResult:
    """Trains a model, or resumes a run: `python -m train RECIPE`.

    However a run was interrupted, it ends bit-equal to an uninterrupted one, on the
    same machine and versions. A run that has ended is not trained again: its result is
    read.

    Args:
      config: what to run.
      out: the run's folder: a new one, or that of the run to resume.
      recipe: name of the recipe that the config is from.
      extend: whether to train the folder's run for the config's larger number of
        epochs; the schedule then spans all of them.
      quiet: whether to print nothing.

    Returns:
      The run's figures, files, metrics and learning curves.

    Raises:
      UserError: if the config cannot be run, or the folder holds anything but this
        run.
      SourceError: if the data cannot be used; a `UserError`.
      NotFiniteError: if a loss or gradient was NaN or infinite. The last checkpoint is
        from before that.
      Interrupted: on SIGINT or SIGTERM, after saving the run.
      StorageError: if the disk filled up. The last checkpoint is complete.
    """
    from train.run import loop
    from train.run.metrics import read_metrics

    run = Path(out)
    # Plain lines in a notebook too, where rich would make a block of each.
    console = Console(quiet=quiet, force_jupyter=False)
    with silent_orbax():
        figures = loop.fit(config, run, recipe=recipe, console=console, extend=extend)
    files = {p.stem: p for p in sorted(run.glob("*.*")) if not p.name.startswith(".")}
    title = f"{config.network.model} on {config.input.data}"
    return FitResult(title, figures, {"run": run, **files}, config, read_metrics(run))


@contextlib.contextmanager
def silent_orbax() -> Iterator[None]:
    """Turns off Orbax's log, which prints tracebacks of the errors that it raises.

    It also warns of every save that another one has to wait for.
    """
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def result_table(run: Path, result: Mapping[str, Any]) -> Table:
    """The final figures of a run.

    Args:
      run: its folder.
      result: the contents of its `result.json`.
    """
    table = Table("", Column(literal(run)), title="Result", title_justify="left")
    for _, name, value in figure_rows(result, result["classes"]):
        table.add_row(name, value)
    if "ema_accuracy" in result:
        table.add_row("accuracy of the EMA", percent(result["ema_accuracy"]))
        table.add_row("loss of the EMA", f"{result['ema_loss']:.4f}")
    table.add_row(f"{result['split']} images", f"{result['test_images']:,}")
    if result["unreadable_images"]:
        table.add_row("unreadable images", f"{result['unreadable_images']:,}")
    table.add_row("parameters", f"{result['parameters']:,}")
    table.add_row("epochs, steps", f"{result['epochs']:,}, {result['steps']:,}")
    table.add_row(
        "training",
        f"{duration(result['seconds'])}, {result['images_per_second']:,.0f} images/s",
    )
    return table
