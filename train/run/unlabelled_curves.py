"""Charts of how unlabelled images were used over the epochs of a run, each on axes."""

from matplotlib.axes import Axes

from cnn_flax.style import BLUE, GREEN, VERMILION, legend_above
from train.run.charts import not_as_math
from train.run.curves import Lines, finish_epochs

__all__ = ["share_chart", "threshold_chart"]

# Metric, label, colour.
_SHARES = (
    ("unlabelled_used", "used", BLUE),
    ("unlabelled_used_right", "used, and right", GREEN),
    ("unlabelled_confidence", "mean confidence", BLUE),
    ("unlabelled_accuracy", "accuracy", GREEN),
)


def threshold_chart(ax: Axes, lines: Lines) -> None:
    """Plots the threshold over the epochs, with a band where classes have their own.

    Args:
      ax: the axes.
      lines: the lines of `metrics.jsonl`.
    """
    name = "unlabelled_threshold"
    epochs, mean = _points(lines, name)
    _plot(ax, epochs, mean, "threshold", VERMILION)
    _, lowest = _points(lines, f"{name}_lowest")
    _, highest = _points(lines, f"{name}_highest")
    if lowest:
        ax.fill_between(
            epochs,
            lowest,
            highest,
            color=VERMILION,
            alpha=0.2,
            linewidth=0,
            label="lowest to highest class",
        )
    ax.set_ylabel("confidence (%)")
    _finish(ax)


def share_chart(ax: Axes, lines: Lines) -> None:
    """Plots the share of the unlabelled images that is used, and with the true class.

    Of a method that uses all of them, it plots the confidence and the accuracy of the
    labels that it guesses.

    Args:
      ax: the axes.
      lines: the lines of `metrics.jsonl`.
    """
    for name, label, color in _SHARES:
        epochs, shares = _points(lines, name)
        if shares:
            _plot(ax, epochs, shares, label, color)
    ax.set_ylabel("unlabelled images (%)")
    _finish(ax)


def _points(lines: Lines, name: str) -> tuple[list[float], list[float]]:
    """Epochs and percentages of a metric."""
    found = [line for line in lines if name in line]
    return [line["epoch"] for line in found], [100 * line[name] for line in found]


def _plot(
    ax: Axes, epochs: list[float], values: list[float], label: str, color: str
) -> None:
    # A single line of training would be an invisible curve.
    marker = {"marker": "o", "markersize": 3} if len(values) == 1 else {}
    ax.plot(epochs, values, label=label, color=color, linewidth=1.5, **marker)


def _finish(ax: Axes) -> None:
    finish_epochs(ax)
    ax.set_ylim(0, 102)
    legend_above(ax)
    not_as_math(ax)
