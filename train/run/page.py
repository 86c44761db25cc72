"""Parts of a self-contained HTML page: text, tables, charts and images.

A page makes no request: charts and images are within it. Whatever comes from a user, a
file or a data set passes through `escape` here, or is escaped by the one who calls.
"""

import base64
import html
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from cnn_flax.style import theme_css
from train.console import printable
from train.run.page_style import STYLE

__all__ = [
    "chart",
    "details",
    "duration_text",
    "escape",
    "gallery",
    "document",
    "image",
    "section",
    "table",
    "tiles",
]

_THUMBNAIL = 160  # Longer side of an image on the page, in pixels.
_LOSSLESS = 96  # Images of up to this many pixels a side are kept as they are.
_PIXELS_PER_INCH = 100  # Of a chart at its natural size.
_SHORT = 20  # Characters of a cell that is not wrapped.
_LONG = ' class="long"'


def escape(text: str) -> str:
    """Text as HTML, also within an attribute, without unprintable characters."""
    return html.escape(printable(text))


def document(above: str, title: str, introduction: str, sections: Iterable[str]) -> str:
    """The page, which needs no other file.

    Args:
      above: text over the heading.
      title: text of the heading.
      introduction: HTML below it.
      sections: HTML of the sections.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{theme_css()}{STYLE}</style>
</head>
<body>
<main>
<header>
<p class="above">{escape(above)}</p>
<h1>{escape(title)}</h1>
{introduction}
</header>
{"".join(sections)}
</main>
</body>
</html>
"""


def section(heading: str, *parts: str) -> str:
    """A section; its heading is text, its parts are HTML."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{''.join(parts)}\n</section>\n"


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Large figures with their meanings, all text."""
    items = (
        f"<li><b>{escape(value)}</b><span>{escape(meaning)}</span></li>"
        for value, meaning in figures
    )
    return f'<ul class="tiles">{"".join(items)}</ul>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], kind="rows") -> str:
    """A table of text, whose rows are stacked on a narrow screen.

    Args:
      header: names of the columns; none for a table of names and values.
      rows: their cells.
      kind: `rows` for figures, `words` for text.
    """
    names = [f' data-name="{escape(name)}"' for name in header]
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{names[i] if names else ''}{_LONG if len(cell) > _SHORT else ''}>"
            f"{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<table class="{kind}">{f"<tr>{head}</tr>" if header else ""}{body}</table>'


def details(heading: str, *parts: str) -> str:
    """Parts that unfold at a click."""
    return (
        f"<details><summary>{escape(heading)}</summary>\n{''.join(parts)}</details>\n"
    )


def chart(
    draw: Callable[[Any], None], size: tuple[float, float], alt: str, caption: str
) -> str:
    """A chart with its caption, in the theme of the reader.

    Args:
      draw: draws it on matplotlib's axes.
      size: width and height in inches. Up to 4.5 wide, all of it is legible at 390 px;
        a wider one is scrolled there.
      alt: text in place of the chart.
      caption: text below it.
    """
    from cnn_flax.style import new_figure, svg
    from train.run.charts import not_as_math

    figure = new_figure(*size)
    draw(figure.subplots())
    picture = svg(not_as_math(figure), salt=alt)
    width = size[0] * _PIXELS_PER_INCH
    # Up to this size all of it is legible at 390 pixels.
    least = 0 if size[0] <= 4.5 else 0.8 * width
    return (
        f'<figure class="chart"><div class="wide"><img alt="{escape(alt)}" '
        f'style="min-width: {least:.0f}px; max-width: {1.25 * width:.0f}px" '
        f'src="{_data_url("image/svg+xml", picture.encode())}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def gallery(images: Iterable[str]) -> str:
    """A grid of images from `image`."""
    return f'<div class="pictures">{"".join(images)}</div>'


def image(pixels: np.ndarray, name: str, caption: str) -> str:
    """A small copy of an image; up to 96 pixels a side, the image itself.

    Args:
      pixels: `uint8 [h, w, C]`, C is 1 or 3.
      name: text in its place, and under the pointer.
      caption: HTML below it.
    """
    thumbnail = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    file = io.BytesIO()
    if is_small := max(thumbnail.size) <= _LOSSLESS:
        thumbnail.save(file, "PNG")
    else:
        thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL))
        thumbnail.save(file, "JPEG", quality=85)
    url = _data_url("image/png" if is_small else "image/jpeg", file.getvalue())
    pixelated = ' class="pixels"' if is_small else ""
    return (
        f'<figure><img src="{url}" alt="{escape(name)}" title="{escape(name)}"'
        f"{pixelated}><figcaption>{caption}</figcaption></figure>"
    )


def duration_text(seconds: float) -> str:
    """Seconds as "40 s", "12 min" or "3 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _data_url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
