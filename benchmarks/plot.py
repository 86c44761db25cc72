"""Plot of published accuracy against measured throughput, to choose a model by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cnn_flax
from benchmarks.axes import INK, finish
from benchmarks.measurements import Row
from benchmarks.tables import OURS
from train.errors import UserError

__all__ = ["accuracy", "plot_accuracy", "points"]

# Offsets of a name from its marker, in points.
_OFFSETS = ((5, 4), (5, -4), (-5, 4), (-5, -4), (5, 9), (5, -9), (-5, 9), (-5, -9))


def accuracy(model: str) -> float | None:
    """Returns the top-1 accuracy of torchvision's weights on ImageNet, in percent.

    It is that of its first weights; None if it has none. timm's are of other recipes,
    which one model has and another does not.
    """
    weights = cnn_flax.model_info(model).weights
    stated = (w.imagenet_top1 for w in weights if w.source.startswith("torchvision"))
    return next(stated, None)


def points(rows: Sequence[Row]) -> list[tuple[str, str, float, float]]:
    """Returns family, model, images per second and accuracy of models with both.

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
            models.append((family, row["model"], row["images_per_second"], top1))
    return sorted(models)


def plot_accuracy(rows: Sequence[Row], path: Path) -> None:
    """Draws one marker per model, in its family's colour.

    Args:
      rows: of the benchmark `inference`.
      path: of the picture.

    Raises:
      UserError: no model has both figures, or matplotlib is not installed.
    """
    found = points(rows)
    if not found:
        raise UserError("No model was measured whose weights' accuracy is published.")
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator
        from matplotlib.transforms import Bbox

        from train.run.plots import not_as_math
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
    not_as_math(figure)
    figure.draw_without_rendering()  # Positions are final from here on.
    places = [(rate, share) for _, _, rate, share in found]
    taken = [Bbox([c - 3, c + 3]) for c in axes.transData.transform(places)]
    for (_, name, _, _), place in zip(found, places, strict=True):
        taken.append(_annotate(axes, name, place, taken))
    figure.savefig(path, dpi=150)


def _annotate(
    axes: Any, name: str, place: tuple[float, float], taken: list[Any]
) -> Any:
    """Writes a name next to its marker, where it overlaps nothing; returns its box."""

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
            parse_math=False,
        )

    for offset in _OFFSETS:
        text = write(*offset)
        box = text.get_window_extent()
        if not any(box.overlaps(other) for other in taken):
            return box
        text.remove()
    return write(*_OFFSETS[0]).get_window_extent()
