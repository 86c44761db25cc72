"""`train.evaluate`: evaluates a run, or a model with weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from train.api.result import Result
from train.console import (
    FigureRow,
    figure_rows,
    interval_text,
    literal,
    percent,
    say,
)
from train.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from train.data import Source
    from train.run.evaluation import AnyEvaluation

__all__ = ["EvaluateResult", "evaluate", "evaluation_table"]


@dataclass(frozen=True, repr=False)
class EvaluateResult(Result):
    """A model's evaluation.

    `figures` are `loss` (in nats), `accuracy`, `top5_accuracy`, `balanced_accuracy`,
    `calibration_error` and `images`. With several classes per image, `accuracy` is the
    share of the images whose classes are all right, and `mean_average_precision` is
    there instead of the next two.

    Attributes:
      evaluation: label, prediction, confidence, rank and loss of each image, or label,
        probability and loss.
      intervals: 95 % intervals of these figures, what the choice of images leaves open;
        see `train.run.bootstrap.intervals`.
      source: the images: `source.read(index)` is one, `uint8 [h, w, C]`.
    """

    evaluation: AnyEvaluation
    source: Source
    intervals: Mapping[str, tuple[float, float]]

    @property
    def class_names(self) -> Sequence[str]:
        """The K classes' names."""
        return self.source.class_names

    def table(self) -> Table:
        """Figures over all images, then accuracy or average precision per class."""
        return evaluation_table(
            self.title, self.evaluation, self.class_names, self.intervals
        )

    def plots(self) -> dict[str, Figure]:
        """`confusion_matrix`, and `worst_images`, those with the largest loss.

        With several classes per image, `precision_recall`.
        """
        from train.run.multi_label import MultiLabelEvaluation
        from train.run.plots import confusion_matrix, precision_recall, worst_images

        evaluation, title = self.evaluation, self.title
        names, read = self.class_names, self.source.read
        if isinstance(evaluation, MultiLabelEvaluation):
            return {"precision_recall": precision_recall(evaluation, names, title)}
        return {
            "confusion_matrix": confusion_matrix(evaluation, names, title),
            "worst_images": worst_images(evaluation, names, read, title),
        }


def evaluate(
    what: Path | str,
    data: str | None = None,
    split: Literal["train", "val", "test"] | None = None,
    *,
    weights: str | None = None,
    batch_size: int | None = None,
    ema: bool = False,
    old_head: bool = False,
    calibrated: bool = False,
    tta: Literal["none", "flip", "crops5", "policy"] = "none",
    max_pixels: int = 0,
    max_unpacked_bytes: int = 0,
    quiet: bool = False,
) -> EvaluateResult:
    """Evaluates a run's last checkpoint, or a model: `python -m train evaluate`.

    Args:
      what: a run's folder, or a model, one of `cnn_flax.list_models()`.
      data: data source of the images; None for the run's.
      split: split of the data; None for that which the run evaluates on, or `test`.
      weights: the model's weights: a file, a folder, or an id on the Hugging Face Hub;
        None for the first published ones. The classes are assumed to be in their order.
      batch_size: images per step; None for the run's, or 64. It does not change the
        figures.
      ema: whether to evaluate the moving average of a run's weights.
      old_head: whether to evaluate the old head of a run with `transfer="lwf"`, on
        images of the old task.
      calibrated: whether to divide a run's logits by the temperature that
        `train.calibrate` fitted.
      tta: test-time augmentation: the mean probabilities of the image and its mirror
        image (`flip`), of five windows of a larger one (`crops5`), or of eight draws of
        the run's augmentation (`policy`).
      max_pixels: allow images of up to this many pixels, if that is more than Pillow's
        limit.
      max_unpacked_bytes: allow the arrays of a compressed npz or idx file to have up to
        this many bytes, if that is more than 64 MiB and 32 times its size.
      quiet: whether to print nothing.

    Raises:
      UserError: if there is no such run, or the arguments or classes do not fit it.
      UnknownModelError, WeightsError: if the model or its weights cannot be loaded.
      SourceError: if the data cannot be used; a `UserError`.
    """
    import cnn_flax
    from cnn_flax.registry import nearest
    from cnn_flax.weights.identify import identify_weights
    from cnn_flax.weights.preprocessing import allow_pixels
    from cnn_flax.weights.unpacking import allow_bytes
    from train.run.inference import evaluate_model, evaluate_run

    allow_pixels(max_pixels)
    allow_bytes(max_unpacked_bytes)
    name, run = str(what), Path(what)
    if run.exists():
        if weights:
            raise UserError(f"{run} has its own weights: leave out --weights.")
        return _result(
            f"{run}{' (EMA)' * ema}{' (calibrated)' * calibrated}",
            *evaluate_run(
                run,
                data,
                split,
                batch_size=batch_size,
                ema=ema,
                old_head=old_head,
                calibrated=calibrated,
                tta=tta,
            ),
        )
    if not weights and name not in cnn_flax.list_models():
        near = nearest(name, cnn_flax.list_models())
        message = f"{run} holds no run. It is not a model either. {near}"
        raise UserError(message.strip())
    if data is None:
        raise UserError(f"Give the images to evaluate {name} on: --data SOURCE")
    if ema:
        raise UserError(f"--ema needs a run; {name} is a model.")
    if calibrated:
        raise UserError(f"--calibrated needs a run; {name} is a model.")
    if old_head:
        raise UserError(f"--old-head needs a run; {name} is a model.")
    prepared = identify_weights(name, weights).preparation
    console = Console(quiet=quiet, force_jupyter=False)
    say(console, f"Images prepared as for {prepared}.")
    found = evaluate_model(
        name,
        data,
        weights=weights,
        split=split or "test",
        batch_size=batch_size or 64,
        tta=tta,
    )
    return _result(name, *found)


def _result(what: str, evaluation: AnyEvaluation, source: Source) -> EvaluateResult:
    figures = {
        **evaluation.figures(),
        "calibration_error": evaluation.calibration_error(),
        "images": len(evaluation.label),
    }
    from train.run.bootstrap import intervals

    title = f"{what} on images of {source.spec}"
    ranges = intervals(evaluation)
    return EvaluateResult(title, figures, {}, evaluation, source, ranges)


def evaluation_table(
    title: str,
    evaluation: AnyEvaluation,
    class_names: Sequence[str],
    intervals: Mapping[str, tuple[float, float]],
) -> Table:
    """Figures over all images, then the accuracy or average precision per class.

    Args:
      title: names the model and the images.
      evaluation: the evaluation.
      class_names: K names.
      intervals: 95 % intervals of the figures, by their names.
    """
    classes = len(class_names)
    table = Table(
        "",
        "",
        "95 % interval",
        "images",
        title=literal(title, "table.title"),
        title_justify="left",
    )
    images = f"{len(evaluation.label):,}"
    error = percent(evaluation.calibration_error())
    for row in (
        *figure_rows(evaluation.figures(), classes),
        FigureRow("calibration_error", "calibration error", error),
    ):
        interval = interval_text(row.name, intervals.get(row.name))
        table.add_row(row.title, row.value, interval, images)
    table.add_section()
    counts, shares = _by_class(evaluation, classes)
    for name, share, count in zip(class_names, shares, counts, strict=True):
        table.add_row(literal(name), percent(share) if count else "", "", f"{count:,}")
    return table


def _by_class(evaluation: AnyEvaluation, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of images, and accuracy or average precision, of each class: `[K]`."""
    from train.run.multi_label import MultiLabelEvaluation

    if isinstance(evaluation, MultiLabelEvaluation):
        counts = evaluation.label.sum(axis=0, dtype=int)
        return counts, evaluation.average_precision()
    counts = np.bincount(evaluation.label, minlength=classes)
    return counts, evaluation.class_accuracy(classes)
