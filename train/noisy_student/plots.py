"""The charts of a Noisy Student's report, and a poster of them all."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from train.noisy_student.summary import BINS, Example, LabelSummary, Summary
from train.run.plots import not_as_math, short_name

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

_INK, _GRID, _GREY = "#1f2937", "#e5e7eb", "#94a3b8"
# Correct and wrong labels: two colours that differ in hue and in lightness.
_CORRECT, _WRONG = "#1d4ed8", "#f97316"
_DUPLICATES = "#bfdbfe"
# With more classes there is no room for their names.
_NAMED_CLASSES = 30


def accuracy_chart(ax: Axes, summary: Summary) -> None:
    """Plots the accuracy of each model, and of its pseudo-labels."""
    models = summary.models
    positions = range(len(models))
    accuracy = [100 * model.accuracy for model in models]
    style = {"marker": "o", "markersize": 7, "linewidth": 2}
    ax.plot(positions, accuracy, color=_INK, label=f"{summary.split} images", **style)
    for x, y in zip(positions, accuracy, strict=True):
        # On white, for legibility where a line passes.
        ax.annotate(
            f"{y:.1f}",
            (x, y),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            weight="bold",
            color=_INK,
            bbox={"boxstyle": "square,pad=0.1", "color": "white", "alpha": 0.8},
        )
    labels = [each.labels for each in summary.rounds]
    for name, marker, color, values in (
        ("pseudo-labels: all", "s", _GREY, [each.accuracy for each in labels]),
        ("pseudo-labels: kept", "^", _CORRECT, [each.kept_accuracy for each in labels]),
    ):
        shares = [100 * value for value in values if value is not None]
        if shares:
            style = {"marker": marker, "linestyle": ":", "markersize": 6}
            ax.plot(range(len(shares)), shares, color=color, label=name, **style)
    names = [
        f"{role.removeprefix('the ')}\n{model.model}, {short_count(model.parameters)}"
        for role, model in zip(summary.roles, models, strict=True)
    ]
    ax.set_xticks(positions, names)
    ax.set_xlim(-0.4, len(models) - 0.6)
    ax.margins(y=0.2)
    ax.set_ylabel("accuracy (%)")
    ax.grid(axis="y", color=_GRID)
    ax.legend(frameon=False, loc="best", fontsize="small")
    _remove_frame(ax)


def confidence_chart(ax: Axes, summary: Summary, labels: LabelSummary) -> None:
    """Plots a histogram of the pseudo-labels' confidence; all rounds share a scale."""
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.asarray(labels.histogram)
    threshold = summary.min_confidence
    style = {"width": 1 / BINS, "align": "edge", "edgecolor": "white", "linewidth": 0.6}
    if labels.histogram_right is None:
        ax.bar(edges[:-1], counts, color=_GREY, **style)
    else:
        correct = np.asarray(labels.histogram_right)
        ax.bar(edges[:-1], correct, color=_CORRECT, label="correct", **style)
        wrong = {"color": _WRONG, "label": "wrong", "bottom": correct}
        ax.bar(edges[:-1], counts - correct, **wrong, **style)
    if threshold > 0:
        line = {"color": _INK, "linestyle": "--", "linewidth": 1.2}
        ax.axvline(threshold, label=f"threshold {threshold:g}", **line)
    if labels.histogram_right is not None or threshold > 0:
        _legend_above(ax)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.05 * max(max(each.labels.histogram) for each in summary.rounds))
    ax.set_xlabel("confidence" + ("; left of the line: left out" if threshold else ""))
    ax.set_ylabel("images")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.grid(axis="y", color=_GRID)
    _remove_frame(ax)


def balance_chart(ax: Axes, labels: LabelSummary, names: Sequence[str]) -> None:
    """Plots the images per class, before and after filtering and balancing."""
    before, kept, after = (
        np.asarray(counts)
        for counts in (labels.before, labels.kept_classes, labels.after)
    )
    if len(names) > _NAMED_CLASSES:
        for name, color, counts in (
            ("before", _GREY, before),
            ("after", _CORRECT, after),
        ):
            ax.plot(np.sort(counts)[::-1], color=color, label=name)
        ax.set_xlabel("classes, largest first")
        ax.set_ylabel("images")
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter("{x:,.0f}")
    else:
        rows = np.arange(len(names))
        ax.barh(rows - 0.2, before, 0.36, color=_GREY, label="before")
        ax.barh(rows + 0.2, kept, 0.36, color=_CORRECT, label="after")
        if labels.duplicates:
            style: dict[str, Any] = {"color": _DUPLICATES, "label": "after: duplicates"}
            ax.barh(rows + 0.2, after - kept, 0.36, left=kept, **style)
        if labels.true is not None:
            style = {"color": _INK, "marker": "|", "s": 110, "linewidths": 1.6}
            ax.scatter(labels.true, rows - 0.2, label="true", zorder=3, **style)
        ax.set_yticks(rows, list(map(short_name, names)))
        ax.invert_yaxis()
        ax.set_xlabel("images; the student is trained on the blue ones")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.grid(axis="both" if len(names) > _NAMED_CLASSES else "x", color=_GRID)
    _legend_above(ax)
    _remove_frame(ax)
    not_as_math(ax)


def poster(summary: Summary, read: Callable[[int], np.ndarray]) -> Figure:
    """The report in one picture: the accuracies, then one row per round.

    Args:
      summary: summary of the Noisy Student.
      read: index -> unlabelled image, `uint8 [h, w, C]`.
    """
    rows = len(summary.rounds)
    balance = min(len(summary.class_names), _NAMED_CLASSES)
    height = max(3.6, 1.4 + 0.24 * balance)
    layout = ConstrainedLayoutEngine(hspace=0.04, wspace=0.03)
    figure = Figure(figsize=(15, 4.6 + height * rows), dpi=110, layout=layout)
    heights = [4.6, *[height] * rows]
    parts = figure.subfigures(rows + 1, 1, squeeze=False, height_ratios=heights)
    top, *parts = parts.flat
    top.suptitle(headline(summary), fontsize=17, weight="bold", x=0.02, ha="left")
    left, right = top.subplots(1, 2, width_ratios=(3, 2))
    left.set_title("Accuracy per model", loc="left")
    accuracy_chart(left, summary)
    _table(right, summary)
    for number, (part, each) in enumerate(zip(parts, summary.rounds, strict=True), 1):
        labels = each.labels
        part.suptitle(
            f"Round {number}: {summary.roles[number]} is trained on {labels.kept:,} of "
            f"{labels.images:,} images labelled by {summary.roles[number - 1]}",
            fontsize=14,
            weight="bold",
            x=0.02,
            ha="left",
        )
        charts, images = part.subfigures(1, 2, width_ratios=(5, 3.2))
        confidence, classes = charts.subplots(1, 2)
        confidence.set_title("Pseudo-labels by confidence", loc="left", pad=24)
        confidence_chart(confidence, summary, labels)
        classes.set_title("Pseudo-labels by class", loc="left", pad=24)
        balance_chart(classes, labels, summary.class_names)
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


def _table(ax: Axes, summary: Summary) -> None:
    """Draws a table of the models."""
    ax.axis("off")
    table = ax.table(
        [
            [
                f"{role.removeprefix('the ')}: {model.model}",
                f"{model.parameters:,}",
                f"{100 * model.accuracy:.2f} %",
                f"{model.seconds / 60:,.1f} min",
            ]
            for role, model in zip(summary.roles, summary.models, strict=True)
        ],
        colLabels=["", "parameters", f"{summary.split} accuracy", "training"],
        colWidths=[0.4, 0.2, 0.22, 0.18],
        loc="center",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    table.scale(1, 1.8)
    for (_, column), cell in table.get_celld().items():
        cell.set_edgecolor(_GRID)
        cell.get_text().set_horizontalalignment("right" if column else "left")


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
        part.suptitle(EXAMPLE_HEADINGS[kind], fontsize=10, x=0.02, ha="left")
        for ax in (axes := part.subplots(1, columns)):
            ax.axis("off")
        for ax, example in zip(axes, group, strict=False):
            pixels = read(example.index)
            ax.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255)
            predicted = short_name(names[example.predicted])
            title = f"{predicted}, {100 * example.confidence:.0f} %"
            if kind == "wrong" and example.true is not None:
                title += f"\ntrue: {short_name(names[example.true])}"
            ax.set_title(title, fontsize=8, color=_INK)


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


def _legend_above(ax: Axes) -> None:
    ax.legend(
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.99),
        ncols=4,
        fontsize="small",
        handlelength=1.2,
        columnspacing=1.2,
    )


def _remove_frame(ax: Axes) -> None:
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    # Padding, so that the two labels at the origin do not overlap.
    ax.tick_params(length=0, pad=6)
