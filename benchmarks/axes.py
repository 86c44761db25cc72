"""The style of axes that the pictures share."""

from typing import Any

__all__ = ["GRID", "INK", "finish"]

INK, GRID = "#1f2937", "#e5e7eb"


def finish(ax: Any) -> None:
    """Draws a light grid behind the data and removes the top and right spines."""
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(colors=INK)
