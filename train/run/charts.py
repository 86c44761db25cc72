"""Charts of an evaluation, each on axes: confusion, reliability, confidence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from cnn_flax.style import (
    BLUE,
    INK,
    ON_BLUE,
    ORANGE,
    SERIES,
    SKY,
    SOFT,
    VERMILION,
    finish,
    legend_above,
)
from train.console import short_name
from train.run.evaluation import Evaluation
from train.run.multi_label import MultiLabelEvaluation

__all__ = [
    "NAMED_CLASSES",
    "confidence_chart",
    "confusion_chart",
    "confusion_size",
    "not_as_math",
    "precision_recall_chart",
    "reliability_chart",
]

_TICK = 18  # Characters of a name next to an axis.
NAMED_CLASSES = 30  # With more, a confusion matrix has no names.
_COUNTED_CLASSES = 20  # With more, its cells have no numbers.


def confusion_size(class_names: Sequence[str]) -> tuple[float, float]:
    """Width and height of `confusion_chart` in inches, at which it is legible."""
    side = float(np.clip(1.4 + 0.3 * len(class_names), 3.4, 9))
    if len(class_names) > NAMED_CLASSES:
        return side, side
    longest = max(len(short_name(name, _TICK)) for name in class_names)
    slanted = 0.7 if longest > 3 else 0
    return side + 0.08 * longest, side + 0.08 * slanted * longest


def confusion_chart(
    ax: Axes, evaluation: Evaluation, class_names: Sequence[str]
) -> None:
    """Draws the number of images by true class (row) and predicted class (column).

    The colour is the share of the row; numbers and names are drawn if they fit.

    Args:
      ax: the axes.
      evaluation: the evaluation.
      class_names: K names.
    """
    classes = len(class_names)
    counts = evaluation.confusion(classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    fade = LinearSegmentedColormap.from_list("fade", [to_rgba(BLUE, 0), to_rgba(BLUE)])
    ax.imshow(shares, cmap=fade, vmin=0, vmax=1, interpolation="none")
    ax.set_xlabel("predicted", color=INK)
    ax.set_ylabel("true", color=INK)
    if classes <= NAMED_CLASSES:
        names = [short_name(name, _TICK) for name in class_names]
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        is_long = max(map(len, names)) > 3
        ax.set_xticks(range(classes), names, **(slanted if is_long else {}))
        ax.set_yticks(range(classes), names)
    if classes <= _COUNTED_CLASSES:
        for row, column in np.argwhere(counts > 0):
            ax.text(
                column,
                row,
                f"{counts[row, column]}",
                ha="center",
                va="center",
                fontsize=8,
                color=ON_BLUE if shares[row, column] > 0.5 else INK,
            )
    ax.tick_params(length=0, labelcolor=INK, labelsize=9)
    ax.spines[:].set_color(SOFT)
    not_as_math(ax)


def reliability_chart(ax: Axes, evaluation: Evaluation) -> None:
    """Draws the accuracy of images of like confidence; perfect is the diagonal."""
    counts, confidence, accuracy = evaluation.reliability()
    width = 100 / len(counts)
    filled = counts > 0
    sure, right = 100 * confidence[filled], 100 * accuracy[filled]
    least, gap = np.minimum(sure, right), np.abs(sure - right)
    style = {"width": 0.94 * width, "align": "edge", "linewidth": 0}
    left = (np.arange(len(counts))[filled] + 0.03) * width
    ax.bar(left, least, color=BLUE, label="accuracy", **style)
    for is_gap, color, label in (
        (right > sure, SKY, "not sure enough"),
        (right < sure, ORANGE, "too sure"),
    ):
        bars = {"bottom": least, "color": color, "label": label, **style}
        ax.bar(left, np.where(is_gap, gap, 0), **bars)
    ax.plot([0, 100], [0, 100], color=INK, linestyle="--", linewidth=1)
    ax.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100))
    finish(ax)
    legend_above(ax)


def confidence_chart(ax: Axes, evaluation: Evaluation) -> None:
    """Draws how many images have which confidence, correct ones and wrong ones."""
    edges = np.linspace(0, 100, 21)
    is_correct = evaluation.prediction == evaluation.label
    bottom = np.zeros(len(edges) - 1)
    for which, color, label in (
        (is_correct, BLUE, "correct"),
        (~is_correct, VERMILION, "wrong"),
    ):
        heights, _ = np.histogram(100 * evaluation.confidence[which], edges)
        style = {"color": color, "label": label, "width": 4.6, "align": "edge"}
        ax.bar(edges[:-1] + 0.2, heights, bottom=bottom, **style)
        bottom += heights
    ax.set(xlabel="confidence (%)", ylabel="images", xlim=(0, 100))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_formatter("{x:,.0f}")
    finish(ax, "y")
    legend_above(ax)


def precision_recall_chart(
    ax: Axes, evaluation: MultiLabelEvaluation, class_names: Sequence[str]
) -> None:
    """Draws precision against recall of classes that images have.

    Args:
      ax: the axes.
      evaluation: the evaluation.
      class_names: K names; with more than seven, the classes with the lowest average
        precision are drawn.
    """
    from sklearn.metrics import precision_recall_curve

    average = evaluation.average_precision()
    worst = np.argsort(average, kind="stable")[: len(SERIES)]
    for color, k in zip(SERIES, map(int, worst), strict=False):
        if np.isnan(average[k]):
            continue
        precision, recall, _ = precision_recall_curve(
            evaluation.label[:, k], evaluation.probability[:, k]
        )
        label = f"{short_name(class_names[k], _TICK)}: {100 * average[k]:.0f} %"
        line = {"color": color, "label": label, "linewidth": 1.5}
        ax.step(100 * recall, 100 * precision, where="post", **line)
    ax.set(xlabel="recall (%)", ylabel="precision (%)", xlim=(0, 100), ylim=(0, 102))
    finish(ax)
    legend_above(ax)
    not_as_math(ax)


def not_as_math(drawing: Any) -> Any:
    """A figure or axes whose texts are drawn as they are: `$` begins no formula."""
    for text in drawing.findobj(Text):
        text.set_parse_math(False)
    return drawing
