"""Pictures of accuracy against speed or cost, to choose a model by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cnn_flax
from benchmarks.measurements import Row
from benchmarks.tables import OURS
from cnn_flax.style import INK, MARKERS, SERIES, SKY, SOFT, finish, new_figure
from train.errors import UserError

__all__ = ["Point", "accuracy", "draw_models", "front", "plot_accuracy", "points"]

# Offsets of a name from its marker, in points.
_OFFSETS = [(x, y) for y in (0, 5, -5, 10, -10, 15, -15) for x in (6, -6)]
_OFF_THE_FRONT = [(x, y) for y in (8, -8, 12, -12, 0) for x in (4, -4)]


class Point(NamedTuple):
    """A model in the picture.

    Attributes:
      family: its family, which has a colour and a marker.
      name: its name.
      x: images per second, or another measure of speed or cost.
      accuracy: top-1 accuracy on ImageNet, in percent.
    """

    family: str
    name: str
    x: float
    accuracy: float


def accuracy(model: str) -> float | None:
    """Returns the top-1 accuracy of torchvision's weights on ImageNet, in percent.

    It is that of its first weights; None if it has none. timm's are of other recipes,
    which one model has and another does not.
    """
    weights = cnn_flax.model_info(model).weights
    stated = (w.imagenet_top1 for w in weights if w.source.startswith("torchvision"))
    return next(stated, None)


def points(rows: Sequence[Row]) -> list[Point]:
    """Returns the models with both a throughput and an accuracy.

    Args:
      rows: of the benchmark `inference`.
    """
    models = []
    for row in rows:
        if row["candidate"] != OURS or "images_per_second" not in row:
            continue
        top1 = accuracy(row["model"])
        if top1 is not None:
            family = cnn_flax.model_info(row["model"]).family
            models.append(Point(family, row["model"], row["images_per_second"], top1))
    return sorted(models)


def front(models: Sequence[Point], *, lower_is_better: bool = False) -> list[Point]:
    """The Pareto front: models that no other one beats in both figures, by accuracy.

    Args:
      models: the models.
      lower_is_better: whether a small `x` is good, as for a cost.
    """
    sign = -1 if lower_is_better else 1
    best: list[Point] = []
    # From the most accurate one on, each must be better in `x` than all before it.
    for point in sorted(models, key=lambda p: (-p.accuracy, -sign * p.x)):
        if not best or sign * point.x > sign * best[-1].x:
            best.append(point)
    return best


def plot_accuracy(
    rows: Sequence[Row], path: Path, header: Mapping[str, Any] | None = None
) -> None:
    """Draws the models by throughput and published accuracy.

    Args:
      rows: of the benchmark `inference`.
      path: of the picture.
      header: the setting in which they were measured.

    Raises:
      UserError: no model has both figures, or matplotlib is not installed.
    """
    found = points(rows)
    if not found:
        raise UserError("No model was measured whose weights' accuracy is published.")
    title = "Published accuracy against measured speed"
    if setting := _setting(rows, header or {}):
        title += f"\n{setting}"
    try:
        figure = draw_models(found, "images per second", title)
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install matplotlib") from error
    figure.savefig(path)


def draw_models(
    models: Sequence[Point],
    xlabel: str,
    title: str,
    *,
    lower_is_better: bool = False,
) -> Any:
    """A figure of models with their names and their Pareto front.

    Args:
      models: the models.
      xlabel: what their `x` is.
      title: title of the figure.
      lower_is_better: as for `front`.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
    from matplotlib.transforms import Bbox

    figure = new_figure(9, 6, title)
    axes: Any = figure.subplots()
    best = front(models, lower_is_better=lower_is_better)
    style = {"color": SKY, "linewidth": 5, "alpha": 0.4, "zorder": 1}
    style |= {"solid_capstyle": "round", "label": "Pareto front"}
    axes.plot([p.x for p in best], [p.accuracy for p in best], **style)
    for i, family in enumerate(dict.fromkeys(point.family for point in models)):
        own = [point for point in models if point.family == family]
        # With more families than colours, the second round has other markers.
        style = {"color": SERIES[i % len(SERIES)], "label": family, "linestyle": ""}
        style["marker"] = MARKERS[(i + i // len(SERIES)) % len(MARKERS)]
        axes.plot([p.x for p in own], [p.accuracy for p in own], markersize=6, **style)
    axes.set(xscale="log", xlabel=xlabel, ylabel="ImageNet top-1 (%)")
    axes.margins(x=0.09)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    finish(axes)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=2)
    figure.draw_without_rendering()  # Positions are final from here on.
    places = axes.transData.transform([(p.x, p.accuracy) for p in models])
    taken = [Bbox([place - 4, place + 4]) for place in places]
    # Those of the front first, as they are read most.
    for point in sorted(models, key=lambda p: p not in best):
        taken.append(_annotate(axes, point, taken, is_best=point in best))
    return figure


def _setting(rows: Sequence[Row], header: Mapping[str, Any]) -> str:
    """Device, batch and dtype, as far as they are the same for all models."""
    ours = [row["case"].split(", ")[1:] for row in rows if row["candidate"] == OURS]
    common = [part for part in ours[0] if all(part in other for other in ours)]
    device = header.get("processor") or header.get("device")
    return ", ".join([device, *common] if device else common)


def _annotate(axes: Any, point: Point, taken: list[Any], *, is_best: bool) -> Any:
    """Writes a name next to its marker, where it overlaps nothing; returns its box."""

    def write(x: float, y: float) -> Any:
        return axes.annotate(
            point.name,
            (point.x, point.accuracy),
            xytext=(x, y),
            textcoords="offset points",
            ha="left" if x > 0 else "right",
            va="center",
            fontsize=7,
            weight="bold" if is_best else "normal",
            color=INK if is_best else SOFT,
            parse_math=False,
        )

    inside = axes.get_window_extent()
    offsets = _OFF_THE_FRONT if is_best else _OFFSETS
    for offset in offsets:
        text = write(*offset)
        box = text.get_window_extent()
        fits = inside.x0 <= box.x0 and box.x1 <= inside.x1
        if fits and not any(box.overlaps(other) for other in taken):
            return box
        text.remove()
    return write(*offsets[0]).get_window_extent()
