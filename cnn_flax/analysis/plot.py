"""Plots receptive fields over a photograph."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cnn_flax.analysis.deformable_sampling import deformable_sampling_points
from cnn_flax.analysis.effective_field import (
    EffectiveReceptiveField,
    effective_receptive_field,
)
from cnn_flax.analysis.named_arrays import Model
from cnn_flax.analysis.receptive_field import ReceptiveField, receptive_field
from cnn_flax.installing import install_command
from cnn_flax.style import BLUE, INK, VERMILION, YELLOW, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_receptive_field"]

# How far a field is drawn outside the image, as a fraction of the image's side.
_MARGIN = 0.6


def plot_receptive_field(
    model: Model,
    variables: Any,
    images: jax.Array,
    at: str | None = None,
    *,
    photograph: np.ndarray | None = None,
    position: Sequence[int] | None = None,
    deformable: int = 0,
    **options: Any,
) -> "Figure":
    """Plots the receptive field of a position, and its effective field.

    The frame is the receptive field, without gates from global pooling. The glow is the
    effective field, brighter where the gradient is larger, and the ellipse marks two
    standard deviations. Points are sampling locations of deformable convolutions.

    Args:
      model: as for `receptive_field`.
      variables: of the model.
      images: float `[N, H, W, C]`, as the model takes them. The effective field
        averages over all of them; the points are those of the first.
      at: name of the map, as for `receptive_field`; None: the last one.
      photograph: `[H, W, 3]` in [0, 1], the background; None: the first image, scaled
        to [0, 1].
      position: (vertical, horizontal) in the map; None: the middle.
      deformable: levels of deformable convolutions whose sampling points are drawn; 0:
        none. More than 3 are hard to read.
      **options: further arguments of the model's call.

    Returns:
      The figure; `figure.savefig(path)` writes it.

    Raises:
      ImportError: if matplotlib is not installed.
      ReceptiveFieldError: same as `receptive_field` and `deformable_sampling_points`.
      ValueError: same as these, or if the photograph does not have the images' size.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"plot_receptive_field needs matplotlib: {install_command('plots')}."
        ) from error
    if np.ndim(images) != 4:
        raise ValueError(f"images must be [N, H, W, C], got shape {np.shape(images)}.")
    height, width, channels = images.shape[1:]
    photograph = _stretched(images[0]) if photograph is None else photograph
    if np.shape(photograph)[:2] != (height, width):
        raise ValueError(
            f"photograph must have the images' size, {height} x {width} pixels; got "
            f"shape {np.shape(photograph)}."
        )
    effective = effective_receptive_field(
        model, variables, images, at, position=position, **options
    )
    fields = [
        receptive_field(
            model,
            (height, width),
            effective.name,
            ignore_global=ignore_global,
            channels=channels,
            **options,
        )
        for ignore_global in (False, True)
    ]

    figure = new_figure(6, 6.4)
    ax = figure.add_subplot()
    ax.imshow(photograph, cmap="gray", vmin=0, vmax=1)
    _draw_effective(ax, effective)
    _draw_field(ax, fields[1], effective.position)
    if deformable:
        points = deformable_sampling_points(
            model,
            variables,
            images[0],
            effective.name,
            position=effective.position,
            levels=deformable,
            **options,
        )
        _draw_points(ax, points, deformable)
    _finish(ax, fields, effective, (height, width))
    return figure


def _stretched(image) -> np.ndarray:
    """Scales to [0, 1]; keeps three channels, averages any other number."""
    image = np.asarray(image, float)
    image = image if image.shape[-1] == 3 else image.mean(-1)
    return (image - image.min()) / max(np.ptp(image), 1e-12)


def _draw_effective(ax: "Axes", effective: EffectiveReceptiveField) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Ellipse

    # Dims the photograph where weights are small. They fall off like a normal
    # distribution; the square root shows the rim too.
    glow = np.sqrt(effective.weights / effective.weights.max())
    shade = LinearSegmentedColormap.from_list("shade", [(0, 0, 0, 0.55), (0, 0, 0, 0)])
    ax.imshow(np.minimum(2 * glow, 1), cmap=shade, vmin=0, vmax=1)
    warm = LinearSegmentedColormap.from_list(
        "warm", [(1, 0.82, 0.4, 0), (1, 0.55, 0.1, 0.85)]
    )
    ax.imshow(glow, cmap=warm, vmin=0, vmax=1)
    row, column = effective.centre
    height, width = (4 * deviation for deviation in effective.deviation)
    ax.add_patch(
        Ellipse(
            (column, row),
            width,
            height,
            fill=False,
            edgecolor=YELLOW,
            linewidth=2,
            label=f"effective, two deviations: {height:.0f} x {width:.0f} px",
            zorder=3,
        )
    )


def _draw_field(ax: "Axes", field: ReceptiveField, position: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    if math.inf in field.size:
        return
    top, left = (
        p * stride - padding - 0.5
        for p, stride, padding in zip(
            position, field.stride, field.padding, strict=True
        )
    )
    height, width = field.size
    undeformed = ", undeformed" if field.data_dependent else ""
    ax.add_patch(
        Rectangle(
            (left, top),
            width,
            height,
            fill=False,
            edgecolor=BLUE,
            linewidth=2.5,
            label=f"receptive field{undeformed}: {height:g} x {width:g} px",
            zorder=3,
        )
    )


def _draw_points(ax: "Axes", points: np.ndarray, levels: int) -> None:
    layers = f"{levels} deformable layer{'s' if levels > 1 else ''}"
    ax.scatter(
        points[:, 1],
        points[:, 0],
        s=26 if len(points) < 100 else 7,
        color=VERMILION,
        edgecolors="white",
        linewidths=0.4,
        label=f"{len(points)} taps of {layers}",
        zorder=4,
    )


def _finish(ax: "Axes", fields, effective, size) -> None:
    everywhere, local = fields
    for limit, axis in ((ax.set_ylim, 0), (ax.set_xlim, 1)):
        start = effective.position[axis] * local.stride[axis] - local.padding[axis]
        margin = _MARGIN * size[axis]
        low = max(min(start, 0), -margin) - 4
        high = min(max(start + local.size[axis], size[axis]), size[axis] + margin) + 4
        limit((high, low) if axis == 0 else (low, high))
    ax.set_facecolor("#f3f4f6")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    title = f"What a position of {effective.name} sees"
    if math.inf in everywhere.size:
        title += "\n(and, by global pooling, the whole image)"
    ax.set_title(title, color=INK, fontsize=12, parse_math=False)
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        frameon=False,
        labelcolor=INK,
        fontsize=9,
    )
