"""Matplotlib figures of a run: curves, confusion matrix, worst images."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from train.console import printable
from train.run.evaluation import Evaluation

__all__ = [
    "comparison",
    "confusion_matrix",
    "learning_curves",
    "not_as_math",
    "predicted_images",
    "save",
    "short_name",
    "worst_images",
]

_TRAIN, _TEST = "#64748b", "#c2410c"
_INK, _GRID = "#1f2937", "#e5e7eb"
_DPI = 150
# One per run. They differ in hue and lightness, to be distinct in grey too.
_RUNS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#0891b2", "#ca8a04", "#be185d")
_LONGEST = 40  # Characters of a name.


def learning_curves(lines: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Loss and accuracy over the epochs.

    Args:
      lines: the lines of `metrics.jsonl`.
      title: title of the figure.
    """
    train = [line for line in lines if line["split"] == "train"]
    test = [line for line in lines if line["split"] != "train"]
    split = test[0]["split"] if test else "test"
    figure, axes = _figure(1, 2, (10, 4), printable(title))
    for ax, name, scale in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for part, label, style in (
            (train, "training", {"color": _TRAIN, "linewidth": 1.2}),
            (test, split, {"color": _TEST, "marker": "o", "markersize": 3.5}),
        ):
            epochs = [line["epoch"] for line in part]
            ax.plot(epochs, [scale * line[name] for line in part], label=label, **style)
        if any(f"ema_{name}" in line for line in test):
            epochs = [line["epoch"] for line in test]
            means = [scale * line[f"ema_{name}"] for line in test]
            ax.plot(epochs, means, label=f"{split}, EMA", color=_TEST, linestyle="--")
    _finish_curves(axes)
    if test:
        last = test[-1]
        axes[1].annotate(
            f"{100 * last['accuracy']:.2f} %",
            (last["epoch"], 100 * last["accuracy"]),
            xytext=(0, -16),
            textcoords="offset points",
            ha="right",
            color=_TEST,
        )
    return not_as_math(figure)


def comparison(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Loss and accuracy of several runs: thin in training, thick in evaluation.

    Args:
      runs: maps a run's label to the lines of its `metrics.jsonl`.
    """
    figure, axes = _figure(1, 2, (11, 4.4), "training (thin), test or val (thick)")
    for ax, name, scale in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for lines, color in zip(runs.values(), cycle(_RUNS)):  # noqa: B905
            train = [line for line in lines if line["split"] == "train"]
            evaluated = [line for line in lines if line["split"] != "train"]
            for part, style in (
                (train, {"linewidth": 0.8, "alpha": 0.5}),
                (evaluated, {"linewidth": 1.8, "marker": "o", "markersize": 3}),
            ):
                epochs = [line["epoch"] for line in part]
                figures = [scale * line[name] for line in part]
                ax.plot(epochs, figures, color=color, **style)
    # Given here, as curves whose label begins with "_" are left out of a legend.
    keys = [Line2D([], [], color=color) for _, color in zip(runs, cycle(_RUNS))]  # noqa: B905
    _finish_curves(
        axes, handles=keys, labels=list(map(_run_label, runs, runs.values()))
    )
    return not_as_math(figure)


def _run_label(label: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """A run's name and, if it was evaluated, its last accuracy."""
    shares = [line["accuracy"] for line in lines if line["split"] != "train"]
    return short_name(label) + (f": {100 * shares[-1]:.2f} %" if shares else "")


def confusion_matrix(
    evaluation: Evaluation, class_names: Sequence[str], title: str
) -> Figure:
    """The number of images by true class (row) and predicted class (column).

    The colour is the share of the row; numbers and names are drawn if they fit.

    Args:
      evaluation: the evaluation of the test images.
      class_names: K names.
      title: title of the figure.
    """
    classes = len(class_names)
    counts = evaluation.confusion(classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.5 + 0.5 * classes, 5, 14))
    figure, ((ax,),) = _figure(
        1, 1, (side + 0.8, side), printable(title), squeeze=False
    )
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    if classes <= 50:
        class_names = list(map(short_name, class_names))
        slanted = {"rotation": 45, "ha": "right"}
        ax.set_xticks(
            range(classes),
            class_names,
            **(slanted if max(map(len, class_names)) > 3 else {}),
        )
        ax.set_yticks(range(classes), class_names)
    if classes <= 20:
        for row, column in np.argwhere(counts > 0):
            ax.text(
                column,
                row,
                f"{counts[row, column]}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.5 else _INK,
            )
    bar = figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return not_as_math(figure)


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
    worst = np.argsort(-evaluation.loss, kind="stable")[:count]
    columns = 6
    rows = max(-(-len(worst) // columns), 1)
    figure, axes = _figure(
        rows,
        columns,
        (1.7 * columns, 2.15 * rows + 0.6),
        f"{printable(title)}: the worst-classified images\n"
        "(true class; predicted class and its probability, red where wrong)",
        squeeze=False,
    )
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
            color=_INK if label == prediction else _TEST,
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
    size = (1.7 * columns, 2.1 * rows)
    figure, axes = _figure(rows, columns, size, "", squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, path, row in zip(axes.flat, paths, probabilities, strict=False):
        ax.imshow(read(path).squeeze(), cmap="gray", vmin=0, vmax=255)
        best = int(row.argmax())
        ax.set_title(
            f"{short_name(class_names[best])}, {100 * row[best]:.0f} %",
            fontsize=9,
            color=_INK,
        )
    return not_as_math(figure)


def short_name(name: str) -> str:
    """A name as it is drawn: printable, and cut in its middle if it is long."""
    name = printable(name)
    half = _LONGEST // 2
    return name if len(name) <= _LONGEST else f"{name[: half - 1]}…{name[-half:]}"


def not_as_math(drawing: Any) -> Any:
    """A figure or axes whose texts are drawn as they are: `$` begins no formula."""
    for text in drawing.findobj(Text):
        text.set_parse_math(False)
    return drawing


def save(figure: Figure, file: Any, **options: Any) -> None:
    """Saves a figure; characters that the font lacks are boxes, without warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, **options)


def _finish_curves(axes, **legend):
    """Sets scales, labels and legend of the axes of loss and accuracy."""
    for ax in axes:
        ax.set_xlabel("epoch")
        ax.grid(color=_GRID)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("loss (nats)")
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_locator(NullLocator())
    axes[1].set_ylabel("accuracy (%)")
    axes[1].set_ylim(top=100.5)
    axes[1].legend(frameon=False, loc="lower right", **legend)


def _figure(rows, columns, size, title, **options):
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=12)
    return figure, figure.subplots(rows, columns, **options)
