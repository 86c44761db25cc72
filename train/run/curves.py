"""Charts of runs over their epochs, each on axes."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from cnn_flax.style import (
    BLUE,
    MARKERS,
    SERIES,
    SOFT,
    VERMILION,
    css_variable,
    finish,
    legend_above,
    mark_text,
)
from train.run.charts import not_as_math

__all__ = [
    "Lines",
    "accuracy_chart",
    "comparison_chart",
    "finish_epochs",
    "loss_chart",
    "run_handles",
    "run_keys",
    "split_lines",
]

Lines = Sequence[Mapping[str, Any]]

# From this ratio of the largest to the smallest loss on, its axis is logarithmic.
_LOG_RANGE = 5

# The markers as text.
_SYMBOLS = dict(zip(MARKERS, "●■▲◆▼✚✖", strict=True))

_TRAIN = {"color": SOFT, "linewidth": 1.2}
_TEST = {"color": VERMILION, "marker": "o", "markersize": 3.5}


def split_lines(lines: Lines) -> tuple[Lines, Lines]:
    """The lines of training, and those of evaluation."""
    return (
        [line for line in lines if line["split"] == "train"],
        [line for line in lines if line["split"] != "train"],
    )


def loss_chart(ax: Axes, lines: Lines, floor: float = 0.0) -> None:
    """Plots the loss over the epochs.

    Args:
      ax: the axes.
      lines: the lines of `metrics.jsonl`.
      floor: the lowest training loss that label smoothing allows, in nats.
    """
    _curves(ax, lines, "loss", 1)
    ax.set_ylabel("loss (nats)")
    _scale_loss(ax)
    if floor > 0:
        ax.axhline(floor, color=SOFT, linestyle=":", linewidth=1)
        options = {"ha": "right", "va": "bottom", "fontsize": 8, "color": SOFT}
        place = (ax.get_xlim()[1], floor)
        mark_text(ax, "label smoothing", place, xytext=(-2, 2), **options)
    legend_above(ax)
    not_as_math(ax)


def accuracy_chart(ax: Axes, lines: Lines) -> None:
    """Plots the accuracy over the epochs, and marks the best one.

    Args:
      ax: the axes.
      lines: the lines of `metrics.jsonl`.
    """
    _curves(ax, lines, "accuracy", 100)
    ax.set_ylabel("accuracy (%)")
    _, test = split_lines(lines)
    if test:
        best = max(test, key=lambda line: line["accuracy"])
        place = best["epoch"], 100 * best["accuracy"]
        ring = {"markersize": 9, "markerfacecolor": "none", "color": VERMILION}
        ax.plot(*place, "o", markeredgewidth=1.6, **ring)
        # Towards the middle of the axes, so that the label is inside them.
        _scale_accuracy(ax)
        x, y = ax.transAxes.inverted().transform(ax.transData.transform(place))
        options = {
            "ha": "right" if x > 0.5 else "left",
            "va": "top" if y > 0.4 else "bottom",
            "xytext": (7 if x > 0.5 else -7, -11 if y > 0.4 else 11),
        }
        text = f"best {place[1]:.2f} % (epoch {place[0]:g})"
        mark_text(ax, text, place, color=VERMILION, fontsize=9, **options)
    _scale_accuracy(ax)
    legend_above(ax)
    not_as_math(ax)


def _curves(ax: Axes, lines: Lines, name: str, scale: float) -> None:
    train, test = split_lines(lines)
    split = test[0]["split"] if test else "test"
    for part, label, style in ((train, "training", _TRAIN), (test, split, _TEST)):
        # A single line of training would be an invisible curve.
        marker = {"marker": "o", "markersize": 3} if len(part) == 1 else {}
        epochs = [line["epoch"] for line in part]
        values = [scale * line[name] for line in part]
        ax.plot(epochs, values, label=label, **{**style, **marker})
    if any(f"ema_{name}" in line for line in test):
        epochs = [line["epoch"] for line in test]
        means = [scale * line[f"ema_{name}"] for line in test]
        ax.plot(epochs, means, label=f"{split}, EMA", color=BLUE, linestyle="--")
    finish_epochs(ax)


def comparison_chart(ax: Axes, runs: Mapping[str, Lines], name: str) -> None:
    """Plots a figure of several runs: thin in training, thick in evaluation.

    Args:
      ax: the axes.
      runs: maps a run's label to the lines of its `metrics.jsonl`.
      name: `loss` or `accuracy`.
    """
    scale = 1 if name == "loss" else 100
    for lines, color, marker in zip(runs.values(), *_styles(), strict=False):
        train, test = split_lines(lines)
        style: dict[str, Any]
        for part, style in (
            (train, {"linewidth": 0.9, "alpha": 0.55}),
            (test, {"linewidth": 1.8, "marker": marker, "markersize": 4}),
        ):
            epochs = [line["epoch"] for line in part]
            ax.plot(epochs, [scale * line[name] for line in part], color=color, **style)
    finish_epochs(ax)
    ax.set_ylabel("loss (nats)" if name == "loss" else "accuracy (%)")
    (_scale_loss if name == "loss" else _scale_accuracy)(ax)


def run_handles(runs: Mapping[str, Lines]) -> list[Line2D]:
    """The legend's handle of each run of `comparison_chart`."""
    return [
        Line2D([], [], color=color, marker=marker, markersize=4)
        for _, color, marker in zip(runs, *_styles(), strict=False)
    ]


def run_keys(count: int) -> list[tuple[str, str]]:
    """The colour in CSS and the symbol of each run of `comparison_chart`."""
    return [
        (css_variable(color), _SYMBOLS[marker])
        for _, color, marker in zip(range(count), *_styles(), strict=False)
    ]


def _styles() -> tuple[Any, Any]:
    # Seven colours; the markers step on after each round of them.
    markers = (m for m in cycle(MARKERS) for _ in SERIES)
    return cycle(SERIES), markers


def finish_epochs(ax: Axes) -> None:
    """Labels the axis of the epochs, from 0, and applies the style."""
    ax.set_xlabel("epoch")
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(ax)


def _scale_loss(ax: Axes) -> None:
    """Logarithmic if the losses span a wide range and none is zero."""
    values = _drawn(ax)
    if not values.size:
        return
    if values.min() > 0 and values.max() > _LOG_RANGE * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
        if len(_inside(ax)) < 2:
            ax.yaxis.set_major_locator(FixedLocator([values.min(), values.max()]))
    else:
        ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter("{x:g}")


def _scale_accuracy(ax: Axes) -> None:
    """As much of 0 to 100 as is needed, with a little room for a label."""
    values = _drawn(ax)
    low = values.min() if values.size else 0
    ax.set_ylim(max(low - 0.06 * (100 - low) - 1, 0), 100 + 0.02 * (100 - low))


def _inside(ax: Axes) -> list[float]:
    low, high = ax.get_ylim()
    return [y for y in ax.get_yticks() if low <= y <= high]


def _drawn(ax: Axes) -> np.ndarray:
    values = [np.asarray(line.get_ydata(), float) for line in ax.lines]
    return np.concatenate([v[np.isfinite(v)] for v in values] or [np.zeros(0)])
