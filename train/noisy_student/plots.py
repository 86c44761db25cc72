"""The charts of a Noisy Student's report, and a poster of them all."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from cnn_flax.style import (
    BLUE,
    INK,
    MUTED,
    SKY,
    SOFT,
    VERMILION,
    finish,
    legend_above,
    mark_text,
)
from train.console import short_name
from train.noisy_student.summary import BINS, Example, LabelSummary, Summary
from train.run.charts import not_as_math
from train.run.page import duration_text

__all__ = [
    "EXAMPLE_HEADINGS",
    "accuracy_chart",
    "balance_chart",
    "confidence_chart",
    "example_kind",
    "headline",
    "poster",
    "short_count",
]

# With more classes there is no room for their names.
_NAMED_CLASSES = 30
# Points between axes and title, for a legend of two lines.
_ABOVE = 36


def accuracy_chart(ax: Axes, summary: Summary) -> None:
    """Plots the accuracy of each model, and of its pseudo-labels."""
    models = summary.models
    positions = range(len(models))
    accuracy = [100 * model.accuracy for model in models]
    labels = [each.labels for each in summary.rounds]
    at: dict[int, list[float]] = {}
    for name, marker, color, values in (
        ("pseudo-labels: all", "s", SOFT, [each.accuracy for each in labels]),
        ("pseudo-labels: kept", "^", BLUE, [each.kept_accuracy for each in labels]),
    ):
        shares = [100 * value for value in values if value is not None]
        if shares:
            style = {"marker": marker, "linestyle": ":", "markersize": 6}
            ax.plot(range(len(shares)), shares, color=color, label=name, **style)
        for x, share in enumerate(shares):
            at.setdefault(x, []).append(share)
    drawn = [*accuracy, *(share for shares in at.values() for share in shares)]
    style = {"marker": "o", "markersize": 7, "linewidth": 2, "color": INK}
    ax.plot(positions, accuracy, label=f"{summary.split} images", **style)
    span = max(max(drawn) - min(drawn), 1)
    for x, y in zip(positions, accuracy, strict=True):
        # Above the marker, but not where a line comes from there or a marker is.
        falls = x > 0 and accuracy[x - 1] > y
        is_taken = any(0 <= z - y < 0.2 * span for z in at.get(x, ()))
        if x == 0:
            options = {"xytext": (-9, 0), "ha": "right", "va": "center"}
        elif falls or is_taken:
            options = {"xytext": (0, -9), "ha": "center", "va": "top"}
        else:
            options = {"xytext": (0, 9), "ha": "center", "va": "bottom"}
        mark_text(ax, f"{y:.1f}", (x, y), weight="bold", **options)
    names = [
        f"{role.removeprefix('the ')}\n{model.model}\n{short_count(model.parameters)}, "
        f"{duration_text(model.seconds)}"
        for role, model in zip(summary.roles, models, strict=True)
    ]
    ax.set_xticks(positions, names, fontsize=8.5)
    ax.set_xlim(-0.5, len(models) - 0.5)
    ax.margins(y=0.2)
    ax.set_ylabel("accuracy (%)")
    _finish(ax, "y")
    legend_above(ax)


def confidence_chart(ax: Axes, summary: Summary, labels: LabelSummary) -> None:
    """Plots a histogram of the pseudo-labels' confidence; all rounds share a scale."""
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.asarray(labels.histogram)
    threshold = summary.min_confidence
    style = {"width": 0.92 / BINS, "align": "edge", "linewidth": 0}
    left = edges[:-1] + 0.04 / BINS
    if labels.histogram_right is None:
        ax.bar(left, counts, color=MUTED, **style)
    else:
        correct = np.asarray(labels.histogram_right)
        ax.bar(left, correct, color=BLUE, label="correct", **style)
        wrong = {"color": VERMILION, "label": "wrong", "bottom": correct}
        ax.bar(left, counts - correct, **wrong, **style)
    if threshold > 0:
        line = {"color": INK, "linestyle": "--", "linewidth": 1.2}
        ax.axvline(threshold, label=f"threshold {threshold:g}", **line)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.05 * max(max(each.labels.histogram) for each in summary.rounds))
    ax.set_xlabel("confidence" + (" (left of the line: left out)" if threshold else ""))
    ax.set_ylabel("images")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_formatter("{x:,.0f}")
    _finish(ax, "y")
    if labels.histogram_right is not None or threshold > 0:
        legend_above(ax)


def balance_chart(ax: Axes, summary: Summary, labels: LabelSummary) -> None:
    """Plots the images per class, before and after filtering and balancing.

    All rounds share a scale.
    """
    names = summary.class_names
    before, kept, after = (
        np.asarray(counts)
        for counts in (labels.before, labels.kept_classes, labels.after)
    )
    most = max(
        max(*each.labels.before, *each.labels.after, *(each.labels.true or [0]))
        for each in summary.rounds
    )
    is_named = len(names) <= _NAMED_CLASSES
    if is_named:
        rows = np.arange(len(names))
        ax.barh(rows - 0.2, before, 0.36, color=MUTED, label="before")
        ax.barh(rows + 0.2, kept, 0.36, color=BLUE, label="after")
        if labels.duplicates:
            style: dict[str, Any] = {"color": SKY, "label": "after: duplicates"}
            ax.barh(rows + 0.2, after - kept, 0.36, left=kept, **style)
        if labels.true is not None:
            style = {"color": INK, "marker": "|", "s": 110, "linewidths": 1.6}
            ax.scatter(labels.true, rows - 0.2, label="true", zorder=3, **style)
        ax.set_yticks(rows, [short_name(name, 18) for name in names])
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_xlabel("images (blue: for the student)")
        counts, limit = ax.xaxis, ax.set_xlim
    else:
        for name, color, values in (("before", SOFT, before), ("after", BLUE, after)):
            ax.plot(np.sort(values)[::-1], color=color, label=name)
        ax.set_xlabel("classes, largest first")
        ax.set_ylabel("images")
        counts, limit = ax.yaxis, ax.set_ylim
    limit(0, 1.05 * max(most, 1))
    counts.set_major_locator(MaxNLocator(4 if is_named else 5, integer=True))
    counts.set_major_formatter("{x:,.0f}")
    _finish(ax, "x" if is_named else "both")
    legend_above(ax)
    not_as_math(ax)


def poster(summary: Summary, read: Callable[[int], np.ndarray]) -> Figure:
    """The report in one picture: the accuracies, then one row per round.

    Args:
      summary: summary of the Noisy Student.
      read: index -> unlabelled image, `uint8 [h, w, C]`.
    """
    rows = len(summary.rounds)
    balance = min(len(summary.class_names), _NAMED_CLASSES)
    height, top_height = max(3.8, 1.6 + 0.24 * balance), 4.2
    layout = ConstrainedLayoutEngine(hspace=0.04, wspace=0.03)
    figure = Figure(figsize=(15, top_height + height * rows), dpi=110, layout=layout)
    heights = [top_height, *[height] * rows]
    parts = figure.subfigures(rows + 1, 1, squeeze=False, height_ratios=heights)
    top, *parts = parts.flat
    title = {"weight": "bold", "x": 0.02, "ha": "left", "color": INK}
    top.suptitle(headline(summary), fontsize=17, **title)
    accuracy = top.subplots()
    accuracy.set_title("Accuracy per model", loc="left", pad=_ABOVE, color=INK)
    accuracy_chart(accuracy, summary)
    for number, (part, each) in enumerate(zip(parts, summary.rounds, strict=True), 1):
        labels = each.labels
        part.suptitle(
            f"Round {number}: {summary.roles[number]} is trained on {labels.kept:,} of "
            f"{labels.images:,} images labelled by {summary.roles[number - 1]}",
            fontsize=14,
            **title,
        )
        charts, images = part.subfigures(1, 2, width_ratios=(5, 3.2))
        confidence, classes = charts.subplots(1, 2)
        confidence.set_title(
            "Pseudo-labels by confidence", loc="left", pad=_ABOVE, color=INK
        )
        confidence_chart(confidence, summary, labels)
        classes.set_title("Pseudo-labels by class", loc="left", pad=_ABOVE, color=INK)
        balance_chart(classes, summary, labels)
        _example_rows(images, labels.examples, summary.class_names, read)
    return not_as_math(figure)


def headline(summary: Summary) -> str:
    """The result in one line."""
    first, last = summary.teacher.accuracy, summary.models[-1].accuracy
    return (
        f"{summary.recipe or 'Noisy Student'}: from {100 * first:.1f} % to "
        f"{100 * last:.1f} % accuracy on {summary.test_images:,} {summary.split} "
        f"images, with {summary.labels:,} labels"
    )


def short_count(count: int) -> str:
    """A number to three digits, such as "78.4 k" or "25.6 M", with a no-break space."""
    value, unit = (count / 1e6, "M") if count >= 1e6 else (count / 1e3, "k")
    return f"{value:.3g}\N{NO-BREAK SPACE}{unit}"


def _example_rows(
    figure: Any,
    examples: Sequence[Example],
    names: Sequence[str],
    read: Callable[[int], np.ndarray],
    columns: int = 4,
) -> None:
    """Draws one row of examples per kind, with their classes and confidences."""
    groups = [(kind, list(group)) for kind, group in groupby(examples, example_kind)]
    if not groups:
        return
    parts = figure.subfigures(len(groups), 1, squeeze=False)
    for part, (kind, group) in zip(parts.flat, groups, strict=True):
        part.suptitle(EXAMPLE_HEADINGS[kind], fontsize=10, x=0.02, ha="left", color=INK)
        for ax in (axes := part.subplots(1, columns)):
            ax.axis("off")
        for ax, example in zip(axes, group, strict=False):
            pixels = read(example.index)
            ax.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255)
            predicted = short_name(names[example.predicted])
            title = f"{predicted}, {100 * example.confidence:.0f} %"
            if kind == "wrong" and example.true is not None:
                title += f"\ntrue: {short_name(names[example.true])}"
            ax.set_title(title, fontsize=8, color=INK)


# The kinds of examples, and their headings.
EXAMPLE_HEADINGS = {
    "correct": "Correct, a random sample",
    "wrong": "Wrong, the most confident of each confusion",
    "unknown": "A random sample; the true classes are unknown",
}


def example_kind(example: Example) -> str:
    """The kind of an example, a key of `EXAMPLE_HEADINGS`."""
    if example.true is None:
        return "unknown"
    return "correct" if example.true == example.predicted else "wrong"


def _finish(ax: Axes, grid: str) -> None:
    finish(ax, grid)
    # Padding, so that the two labels at the origin do not overlap.
    ax.tick_params(length=0, pad=6)
