"""What users choose a model by: published accuracy against measured throughput."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cnn_flax
from benchmarks.axes import INK, finish
from benchmarks.measurements import Row
from benchmarks.tables import OURS
from train.errors import UserError

__all__ = ["accuracy", "plot_accuracy", "points"]

# Of a name from its point, in points.
_SIDES = ((5, 4), (5, -4), (-5, 4), (-5, -4), (5, 9), (5, -9), (-5, 9), (-5, -9))


def accuracy(model: str) -> float | None:
    """Share of ImageNet's validation images that published weights classify rightly.

    The first weights count whose authors state it, in percent; None where none do.
    """
    weights = cnn_flax.model_info(model).weights
    stated = (w.imagenet_top1 for w in weights if w.imagenet_top1 is not None)
    return next(stated, None)


def points(rows: Sequence[Row]) -> list[tuple[str, str, float, float]]:
    """Family, model, images a second and accuracy of what has both.

    Args:
      rows: of the benchmark of inference.
    """
    found = []
    for row in rows:
        if row["candidate"] != OURS or "images_per_second" not in row:
            continue
        top1 = accuracy(row["model"])
        if top1 is not None:
            family = cnn_flax.model_info(row["model"]).family
            found.append((family, row["model"], row["images_per_second"], top1))
    return sorted(found)


def plot_accuracy(rows: Sequence[Row], path: Path) -> None:
    """Draws a point a model, the families in colours of their own.

    Args:
      rows: of the benchmark of inference.
      path: of the picture.

    Raises:
      UserError: no model has both, or matplotlib is not installed.
    """
    found = points(rows)
    if not found:
        raise UserError("No model was measured whose weights' accuracy is published.")
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator
        from matplotlib.transforms import Bbox
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes: Any = figure.subplots()
    for family in dict.fromkeys(point[0] for point in found):
        own = sorted((p for p in found if p[0] == family), key=lambda p: p[2])
        _, names, rates, shares = zip(*own, strict=True)
        axes.plot(rates, shares, "o", label=family, markersize=5)
    axes.set(xscale="log", xlabel="images per second", ylabel="ImageNet top-1, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    finish(axes)
    axes.legend(frameon=False)
    figure.draw_without_rendering()  # Where things stand is known from here on.
    places = [(rate, share) for _, _, rate, share in found]
    taken = [Bbox([c - 3, c + 3]) for c in axes.transData.transform(places)]
    for (_, name, _, _), place in zip(found, places, strict=True):
        taken.append(_written(axes, name, place, taken))
    figure.savefig(path, dpi=150)


def _written(axes: Any, name: str, place: tuple[float, float], taken: list[Any]) -> Any:
    """Writes a name beside its point, on a side where nothing else is; its box."""

    def write(x: float, y: float) -> Any:
        return axes.annotate(
            name,
            place,
            xytext=(x, y),
            textcoords="offset points",
            ha="left" if x > 0 else "right",
            va="center",
            fontsize=6,
            color=INK,
        )

    for side in _SIDES:
        text = write(*side)
        box = text.get_window_extent()
        if not any(box.overlaps(other) for other in taken):
            return box
        text.remove()
    return write(*_SIDES[0]).get_window_extent()
