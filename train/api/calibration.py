"""`train.calibrate`: fits the temperature of a run's probabilities."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table

from train.api.result import Result
from train.console import literal, percent

__all__ = ["CalibrateResult", "calibrate"]


@dataclass(frozen=True, repr=False)
class CalibrateResult(Result):
    """A temperature, and what it changed.

    `figures` are those of `train.run.calibrating.Calibration`: `temperature`, and
    `loss` and `calibration_error` on the images that it was fitted on, with the suffix
    `_before` those without it.
    """

    def table(self) -> Table:
        """The temperature; loss and calibration error without it and with it."""
        figures = self.figures
        table = Table(
            "",
            "before",
            "after",
            title=literal(self.title, "table.title"),
            title_justify="left",
        )
        table.add_row("temperature", "1", f"{figures['temperature']:.4f}")
        table.add_row("loss", f"{figures['loss_before']:.4f}", f"{figures['loss']:.4f}")
        table.add_row(
            "calibration error",
            percent(figures["calibration_error_before"]),
            percent(figures["calibration_error"]),
        )
        return table


def calibrate(
    run: Path | str,
    data: str | None = None,
    split: Literal["train", "val", "test"] = "val",
    *,
    batch_size: int | None = None,
) -> CalibrateResult:
    """Fits the temperature of a run's probabilities: `python -m train calibrate`.

    It is written into the run's folder; `predict` then uses it, and `evaluate` where
    asked. The predicted classes do not change.

    Args:
      run: the run's folder.
      data: a data source with the same classes; None for the run's.
      split: split of the data, of images that the model has not learned and is not
        judged by.
      batch_size: images per step; None for the run's.

    Raises:
      UserError: if the folder holds no run, or the images do not fit.
      SourceError: if the data cannot be used; a `UserError`.
    """
    from train.run.calibrating import calibrate_run

    found = calibrate_run(Path(run), data, split, batch_size=batch_size)
    texts = ("data", "split")
    figures = {k: v for k, v in asdict(found).items() if k not in texts}
    title = f"{run} on {found.images:,} {found.split} images of {found.data}"
    return CalibrateResult(title, figures, {})
