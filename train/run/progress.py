"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from train.console import duration, percent, say

__all__ = ["RunProgress"]

Json = Mapping[str, Any]


class RunProgress:
    """Shows progress: a bar on a terminal, plain lines elsewhere.

    A context manager; the bar is shown inside it.
    """

    def __init__(
        self, console: Console, *, start: int, steps: int, epochs: int
    ) -> None:
        """Creates the bar.

        Args:
          console: prints the bar or the lines.
          start: number of completed steps.
          steps: number of steps of the run.
          epochs: number of epochs of the run.
        """
        self._console = console
        self._steps = steps
        self._epochs = epochs
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(
            "", total=steps, completed=start, figures="waiting for the first figures"
        )

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def step(self) -> None:
        """Advances the bar by one step."""
        self._bar.advance(self._task)

    def trained(self, line: Json) -> None:
        """Shows a line of training metrics."""
        figures = (
            f"loss {line['loss']:.4f}  accuracy {percent(line['accuracy'])}  "
            f"{line['images_per_second']:,.0f} images/s"
        )
        self._bar.update(self._task, figures=figures)
        if not self._console.is_terminal:
            left = duration(self._bar.tasks[0].time_remaining or 0)
            say(
                self._console,
                f"step {line['step']}/{self._steps}  {figures}  {left} left",
            )

    def evaluated(self, line: Json) -> None:
        """Shows a line of evaluation metrics."""
        say(
            self._console,
            f"epoch {line['epoch']:g}/{self._epochs}  "
            f"{line['split']} loss {line['loss']:.4f}  "
            f"{line['split']} accuracy {percent(line['accuracy'])}"
            f"{_ema_accuracy(line)}",
        )


def _ema_accuracy(line: Json) -> str:
    """The accuracy of the moving average, if the run has one."""
    return f"  of the EMA {percent(line['ema_accuracy'])}" if "ema_loss" in line else ""
