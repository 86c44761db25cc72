"""`python -m train evaluate`: evaluates a run, or a model with weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from train.compilation_cache import use_compilation_cache
from train.console import figure_rows, literal, percent
from train.errors import UserError

if TYPE_CHECKING:
    from train.data import Source
    from train.run.evaluation import Evaluation

__all__ = ["Evaluate", "evaluation_table"]


@dataclass(frozen=True)
class Evaluate:
    """Evaluates a run's last checkpoint, or a model with weights from elsewhere."""

    what: Positional[str]
    """Folder of a run, or a model, one of cnn_flax.list_models()."""
    data: str | None = None
    """Data source of the images; by default the run's."""
    split: Literal["train", "val", "test"] | None = None
    """Split of the data; by default that which the run evaluates on, or test."""
    weights: str | None = None
    """The model's weights: a file, a folder, or an id on the Hugging Face Hub; by
    default the first published ones."""
    batch_size: int | None = None
    """Images per step; by default the run's, or 64. It does not change the figures."""
    ema: bool = False
    """Evaluate the moving average of the weights of a run with --ema-decay."""
    old_head: bool = False
    """Evaluate the head of the old task, of a run with --transfer lwf; --data gives
    images of that task."""
    max_pixels: int = 0
    """Allow images of up to this many pixels, if that is more than Pillow's limit."""

    def __call__(self) -> None:
        """Runs the command."""
        use_compilation_cache()
        evaluation, source = self._evaluate()
        average = " (EMA)" if self.ema else ""
        title = f"{self.what}{average} on images of {source.spec}"
        Console().print(evaluation_table(title, evaluation, source.class_names))

    def _evaluate(self) -> tuple[Evaluation, Source]:
        import cnn_flax
        from cnn_flax.registry import nearest
        from cnn_flax.weights.identify import identify_weights
        from cnn_flax.weights.preprocessing import allow_pixels
        from train.run.inference import evaluate_model, evaluate_run

        allow_pixels(self.max_pixels)
        name, run = self.what, Path(self.what)
        if run.exists():
            if self.weights:
                raise UserError(f"{run} has its own weights: leave out --weights.")
            return evaluate_run(
                run,
                self.data,
                self.split,
                batch_size=self.batch_size,
                ema=self.ema,
                old_head=self.old_head,
            )
        if not self.weights and name not in cnn_flax.list_models():
            near = nearest(name, cnn_flax.list_models())
            message = f"{run} holds no run. It is not a model either. {near}"
            raise UserError(message.strip())
        if self.data is None:
            raise UserError(f"Give the images to evaluate {name} on: --data SOURCE")
        if self.ema:
            raise UserError(f"--ema needs a run; {name} is a model.")
        if self.old_head:
            raise UserError(f"--old-head needs a run; {name} is a model.")
        prepared = identify_weights(name, self.weights).preparation
        Console().print(f"Images prepared as for {prepared}.", markup=False)
        return evaluate_model(
            name,
            self.data,
            weights=self.weights,
            split=self.split or "test",
            batch_size=self.batch_size or 64,
        )


def evaluation_table(
    title: str, evaluation: Evaluation, class_names: Sequence[str]
) -> Table:
    """Figures over all images, then the accuracy per class.

    Args:
      title: names the model and the images.
      evaluation: the evaluation.
      class_names: K names.
    """
    classes = len(class_names)
    table = Table(
        "", "", "images", title=literal(title, "table.title"), title_justify="left"
    )
    images = f"{len(evaluation.label):,}"
    for name, value in figure_rows(evaluation.figures(), classes):
        table.add_row(name, value, images)
    error = percent(evaluation.calibration_error())
    table.add_row("calibration error", error, images)
    table.add_section()
    counts = np.bincount(evaluation.label, minlength=classes)
    shares = evaluation.class_accuracy(classes)
    for name, share, count in zip(class_names, shares, counts, strict=True):
        table.add_row(literal(name), percent(share) if count else "", f"{count:,}")
    return table
