"""Matplotlib figures of a run: curves, confusion matrix, worst images."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cnn_flax.style import INK, VERMILION, new_figure
from train.console import printable, short_name
from train.run.charts import (
    confusion_chart,
    confusion_size,
    not_as_math,
    precision_recall_chart,
)
from train.run.curves import (
    Lines,
    accuracy_chart,
    comparison_chart,
    loss_chart,
    run_handles,
    split_lines,
)
from train.run.evaluation import Evaluation
from train.run.multi_label import MultiLabelEvaluation

__all__ = [
    "comparison",
    "confusion_matrix",
    "learning_curves",
    "precision_recall",
    "predicted_images",
    "save",
    "worst_images",
]


def learning_curves(lines: Lines, title: str, floor: float = 0.0) -> Figure:
    """Loss and accuracy over the epochs.

    Args:
      lines: the lines of `metrics.jsonl`.
      title: title of the figure.
      floor: as for `train.run.charts.loss_chart`.
    """
    figure = new_figure(10, 4, printable(title))
    left, right = figure.subplots(1, 2)
    loss_chart(left, lines, floor)
    accuracy_chart(right, lines)
    return figure


def comparison(runs: Mapping[str, Lines]) -> Figure:
    """Loss and accuracy of several runs: thin in training, thick in evaluation.

    Args:
      runs: maps a run's label to the lines of its `metrics.jsonl`.
    """
    figure = new_figure(11, 4.4, "training (thin), test or val (thick)")
    left, right = figure.subplots(1, 2)
    comparison_chart(left, runs, "loss")
    comparison_chart(right, runs, "accuracy")
    # Given here, as curves whose label begins with "_" are left out of a legend.
    labels = list(map(_run_label, runs, runs.values()))
    right.legend(run_handles(runs), labels, frameon=False, loc="lower right")
    return not_as_math(figure)


def _run_label(label: str, lines: Lines) -> str:
    """A run's name and, if it was evaluated, its last accuracy."""
    shares = [line["accuracy"] for line in split_lines(lines)[1]]
    return short_name(label) + (f": {100 * shares[-1]:.2f} %" if shares else "")


def confusion_matrix(
    evaluation: Evaluation, class_names: Sequence[str], title: str
) -> Figure:
    """The number of images by true class (row) and predicted class (column).

    Args:
      evaluation: the evaluation of the test images.
      class_names: K names.
      title: title of the figure.
    """
    width, height = confusion_size(class_names)
    figure = new_figure(1.2 * width, 1.2 * height + 0.3, printable(title))
    confusion_chart(figure.subplots(), evaluation, class_names)
    return figure


def precision_recall(
    evaluation: MultiLabelEvaluation, class_names: Sequence[str], title: str
) -> Figure:
    """Precision against recall of up to seven classes, those that are found worst.

    Args:
      evaluation: the evaluation of the test images.
      class_names: K names.
      title: title of the figure.
    """
    figure = new_figure(5.5, 4.6, printable(title))
    precision_recall_chart(figure.subplots(), evaluation, class_names)
    return figure


def worst_images(
    evaluation: Evaluation,
    class_names: Sequence[str],
    read: Callable[[int], np.ndarray],
    title: str,
    count: int = 24,
) -> Figure:
    """The images whose labels have the lowest probability, worst first.

    Args:
      evaluation: the evaluation of the test images.
      class_names: K names.
      read: returns the image at an index, `uint8 [h, w, C]`.
      title: title of the figure.
      count: number of images.
    """
    worst = evaluation.worst(count)
    columns = 6
    rows = max(-(-len(worst) // columns), 1)
    figure = new_figure(
        1.7 * columns,
        2.15 * rows + 0.6,
        f"{printable(title)}: the worst-classified images\n"
        "(true class; predicted class and its probability, red where wrong)",
    )
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, i in zip(axes.flat, worst, strict=False):
        pixels = read(int(evaluation.index[i]))
        ax.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255)
        label, prediction = int(evaluation.label[i]), int(evaluation.prediction[i])
        ax.set_title(
            f"{short_name(class_names[label])}\n"
            f"{short_name(class_names[prediction])}, "
            f"{100 * evaluation.confidence[i]:.0f} %",
            fontsize=9,
            color=INK if label == prediction else VERMILION,
        )
    return not_as_math(figure)


def predicted_images(
    paths: Sequence[Path],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    read: Callable[[Path], np.ndarray],
    count: int = 12,
) -> Figure:
    """The first images, each with its most probable class and that probability.

    Args:
      paths: n image files, at least one.
      probabilities: float `[n, K]`.
      class_names: K names.
      read: returns the image of a file, `uint8 [h, w, 1 or 3]`.
      count: number of images.
    """
    paths = paths[:count]
    columns = min(len(paths), 6)
    rows = -(-len(paths) // columns)
    figure = new_figure(1.7 * columns, 2.1 * rows)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, path, row in zip(axes.flat, paths, probabilities, strict=False):
        ax.imshow(read(path).squeeze(), cmap="gray", vmin=0, vmax=255)
        best = int(row.argmax())
        name = short_name(class_names[best])
        ax.set_title(f"{name}, {100 * row[best]:.0f} %", fontsize=9, color=INK)
    return not_as_math(figure)


def save(figure: Figure, file: Any, **options: Any) -> None:
    """Saves a figure; characters that the font lacks are boxes, without warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, **options)
