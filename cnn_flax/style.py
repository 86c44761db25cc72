"""The style of every picture and page: colours, axes, and the light and dark theme.

The colours are those of Okabe and Ito, https://jfly.uni-koeln.de/color/, which people
with any kind of colour blindness can tell apart; they differ in lightness too. The dark
theme has lighter ones of the same hues. Matplotlib is imported where it is used, as it
is an extra.
"""

import io
import re
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "DPI",
    "GREEN",
    "GRID",
    "INK",
    "MARKERS",
    "MUTED",
    "ON_BLUE",
    "ORANGE",
    "PAPER",
    "PINK",
    "SERIES",
    "SKY",
    "SOFT",
    "VERMILION",
    "YELLOW",
    "css_variable",
    "finish",
    "legend_above",
    "mark_text",
    "new_figure",
    "svg",
    "theme_css",
]

INK, SOFT, GRID, PAPER = "#1f2937", "#5b6472", "#d9dee6", "#ffffff"
MUTED = "#98a2b3"  # Areas of what is less important.
BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"
PINK, ORANGE, SKY, YELLOW = "#cc79a7", "#e69f00", "#56b4e9", "#f0e442"
ON_BLUE = "#f8fafc"  # Text on blue, in both themes.

# One per series, in this order; with more series, vary the marker too.
SERIES = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

DPI = 150

# Name, light, dark.
_THEME = (
    ("ink", INK, "#e5e9f0"),
    ("soft", SOFT, "#a3adbd"),
    ("muted", MUTED, "#6a7689"),
    ("grid", GRID, "#384252"),
    ("paper", PAPER, "#161c26"),
    ("blue", BLUE, "#4aa8e8"),
    ("vermilion", VERMILION, "#f68a4c"),
    ("green", GREEN, "#35c79a"),
    ("pink", PINK, "#e3a0c6"),
    ("orange", ORANGE, "#f2b638"),
    ("sky", SKY, "#8fcdf4"),
    ("yellow", YELLOW, "#f0e442"),
)
_VARIABLES = {light: name for name, light, _ in _THEME} | {"#000000": "ink"}


def theme_css() -> str:
    """CSS variables of all colours, such as `--ink`, light and dark."""
    light, dark = (
        " ".join(f"--{row[0]}: {row[column]};" for row in _THEME) for column in (1, 2)
    )
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )


def css_variable(colour: str) -> str:
    """A colour of this module in CSS, in the reader's theme."""
    return f"var(--{_VARIABLES[colour]})"


def new_figure(width: float, height: float, title: str = "") -> "Figure":
    """A figure in inches, whose parts never overlap; its title is no mathematics."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12, color=INK, parse_math=False)
    return figure


def finish(ax: Any, grid: Any = "both") -> None:
    """Draws a light grid behind the data, and removes the top and right spines.

    Args:
      ax: matplotlib's axes.
      grid: which lines the grid has: "x", "y" or "both".
    """
    ax.grid(visible=True, axis=grid, color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(SOFT)
    ax.tick_params(color=SOFT, labelcolor=INK)
    for label in (ax.title, ax.xaxis.label, ax.yaxis.label):
        label.set_color(INK)


def legend_above(ax: Any) -> None:
    """Puts the legend above the axes, where no data are; two rows from four on."""
    count = len(ax.get_legend_handles_labels()[0])
    ax.legend(
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.99),
        ncols=2 if count == 4 else 3,
        fontsize=9,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1.2,
    )


def mark_text(ax: Any, text: str, place: tuple[float, float], **options: Any) -> Any:
    """Writes a text at a place in the data, on paper, so that no line crosses it.

    Args:
      ax: matplotlib's axes.
      text: the text, which is no mathematics.
      place: x and y.
      **options: of `annotate`, such as `xytext` in points, `ha` and `color`.
    """
    box = {"boxstyle": "square,pad=0.15", "color": PAPER, "alpha": 0.85}
    style = {"xytext": (0, 0), "textcoords": "offset points", "parse_math": False}
    return ax.annotate(text, place, **{**style, "bbox": box, "color": INK, **options})


def svg(figure: "Figure", salt: str = "") -> str:
    """A figure as SVG whose colours follow the reader's theme.

    Its texts are text, in the reader's fonts. The same figure gives the same bytes.

    Args:
      figure: in the colours of this module; other colours stay as they are.
      salt: tells figures on one page apart.
    """
    import matplotlib

    file = io.StringIO()
    settings: Any = {"svg.hashsalt": salt or "cnn_flax", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The reader's fonts may have it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    picture = re.sub(r'(?<= style=")[^"]*', _themed, file.getvalue())
    style = f"<style>{theme_css()} text {{ fill: var(--ink) }}</style>"
    # Without the XML declaration and doctype before it, which HTML does not need.
    return re.sub(r"^.*?(<svg[^>]*>)", rf"\1{style}", picture, count=1, flags=re.S)


def _themed(style: re.Match[str]) -> str:
    def variable(colour: re.Match[str]) -> str:
        return css_variable(colour[0]) if colour[0] in _VARIABLES else colour[0]

    return re.sub(r"#[0-9a-f]{6}\b", variable, style[0])
