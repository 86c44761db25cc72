"""`train.self_train`: a Noisy Student, in rounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from train.api.result import Result
from train.api.training import silent_orbax
from train.noisy_student import NoisyStudent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from train.noisy_student.summary import Summary

__all__ = ["SelfTrainResult", "self_train"]


@dataclass(frozen=True, repr=False)
class SelfTrainResult(Result):
    """A Noisy Student that has ended.

    `figures` are the `accuracy` and `loss` (in nats) of the last model, and
    `teacher_accuracy`, that of the first. `paths` has `out`, the folder, and
    `report`, if matplotlib is installed.

    Attributes:
      student: what was run.
      summary: every model and every round of labels.
    """

    student: NoisyStudent
    summary: Summary

    @property
    def run(self) -> Path:
        """The last model's folder, which `evaluate` and `predict` take."""
        return self.paths["out"] / self.summary.models[-1].stage

    def table(self) -> Table:
        """The models, one row each."""
        from train.noisy_student.table import noisy_student_table

        return noisy_student_table(self.summary)

    def plots(self) -> dict[str, Figure]:
        """`poster`: accuracy, confidence and balance of all rounds, and examples."""
        from train.data.select import open_unlabelled
        from train.noisy_student.plots import poster

        config = self.student.config
        source = open_unlabelled(config, config.unlabelled.unlabelled)
        return {"poster": poster(self.summary, source.read)}


def self_train(
    student: NoisyStudent,
    out: Path | str,
    *,
    recipe: str = "",
    command: str = "",
    quiet: bool = False,
) -> SelfTrainResult:
    """Labels images with a model and trains the next on them, round after round.

    This is `python -m train noisy-student`. A stage that has ended is not repeated, so
    that the same call resumes.

    Args:
      student: what to run.
      out: its folder: a new one, or that of the Noisy Student to resume.
      recipe: name of the recipe that it is from.
      command: the command to reproduce it, for the report.
      quiet: whether to print nothing.

    Raises:
      UserError: if it cannot be run, or the folder holds something else.
      SourceError: if the data cannot be used; a `UserError`.
      NotFiniteError, Interrupted, StorageError: as `train.fit`.
    """
    from train.noisy_student.run import run

    console = Console(quiet=quiet, force_jupyter=False)
    out = Path(out)
    with silent_orbax():
        summary = run(student, out, recipe=recipe, command=command, console=console)
    last = summary.models[-1]
    figures = {
        "accuracy": last.accuracy,
        "loss": last.loss,
        "teacher_accuracy": summary.teacher.accuracy,
    }
    paths = {"out": out, "report": out / "report.html"}
    paths = {name: path for name, path in paths.items() if path.exists()}
    title = f"Noisy Student on {summary.data}"
    return SelfTrainResult(title, figures, paths, student, summary)
