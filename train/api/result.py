"""What a program gives back: figures, paths, a table and plots."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from train.console import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result"]

_WIDTH = 88  # Characters of a line in a notebook.
_DPI = 72  # Of the plots in a notebook, to keep its file small.
_BLOCK = (
    "<pre style='white-space:pre;overflow-x:auto;line-height:normal;font-family:"
    'Menlo,"DejaVu Sans Mono",consolas,"Courier New",monospace\'>{code}</pre>'
)


@dataclass(frozen=True, repr=False)
class Result:
    """What a program gives back.

    It prints as one line; as a table with `rich.print`; and in a notebook as a table
    with its plots below.

    Attributes:
      title: names the model, and the images.
      figures: numbers by their names; shares such as `accuracy` are in [0, 1].
      paths: what was written, by its name.
    """

    title: str
    figures: Mapping[str, Any]
    paths: Mapping[str, Path]

    def table(self) -> Table:
        """The figures as a table, as the command line prints them."""
        table = Table("", "", title=printable(self.title), title_justify="left")
        for name, value in self.figures.items():
            table.add_row(name, _plain(value))
        return table

    def plots(self) -> dict[str, Figure]:
        """Draws the plots, by name; needs matplotlib (`cnn-flax[plots]`)."""
        return {}

    def __rich__(self) -> Table:
        return self.table()

    def __repr__(self) -> str:
        figures = ", ".join(f"{k}={_plain(v)}" for k, v in self.figures.items())
        return f"<{type(self).__name__} {printable(self.title)!r}: {figures}>"

    def _repr_html_(self) -> str:
        """The table, and the plots if matplotlib is installed, for a notebook."""
        console = Console(
            file=io.StringIO(), record=True, width=_WIDTH, force_jupyter=False
        )
        console.print(self.table())
        parts = [console.export_html(code_format=_BLOCK, inline_styles=True)]
        try:
            plots = self.plots()
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("matplotlib"):
                raise
            from cnn_flax.installing import install_command

            plots = {}
            command = html.escape(install_command("plots"))
            parts.append(f"<p>For plots: <code>{command}</code></p>")
        parts += [_image(name, figure) for name, figure in plots.items()]
        return "\n".join(parts)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _image(name: str, figure: Figure) -> str:
    """A figure as an HTML element that holds its pixels."""
    from train.run.plots import save

    file = io.BytesIO()
    save(figure, file, format="png", dpi=_DPI, bbox_inches="tight")
    content = base64.b64encode(file.getvalue()).decode()
    alt = name.replace("_", " ")
    return f'<img alt="{alt}" src="data:image/png;base64,{content}">'
