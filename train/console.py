"""Console output: plain lines, names as they are, and the numbers in tables."""

import contextlib
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

__all__ = [
    "FigureRow",
    "class_line",
    "duration",
    "escape_what_cannot_be_encoded",
    "figure_rows",
    "interval_text",
    "literal",
    "percent",
    "printable",
    "program_called",
    "program_name",
    "say",
    "short_name",
]

_NAMED_CLASSES = 5
_program = "python -m train"
# Control characters, breaks of lines, changes of direction, halves of surrogate pairs,
# which stand for the bytes of a name that is not UTF-8, and what XML forbids.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def program_name() -> str:
    """What the training programs are called by: `python -m train`, or from a wheel."""
    return _program


@contextlib.contextmanager
def program_called(name: str) -> Iterator[None]:
    """Sets `program_name` inside a context."""
    global _program
    before, _program = _program, name
    try:
        yield
    finally:
        _program = before


def printable(text: str) -> str:
    r"""A name with its unprintable characters escaped as in Python: `\x1b`, `\n`."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def short_name(name: str, longest: int = 40) -> str:
    """A name as it is drawn: printable, and cut in its middle if it is long."""
    name = printable(name)
    half = longest // 2
    return name if len(name) <= longest else f"{name[: half - 1]}…{name[-half:]}"


def literal(name: object, style: str = "") -> Text:
    """A name for a table, printed whole and as it is: no markup, no emoji codes."""
    return Text(printable(str(name)), style, overflow="fold")


def escape_what_cannot_be_encoded() -> None:
    """Makes the standard streams escape what their encoding lacks, and never fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(console: Console, text: str) -> None:
    """Prints lines verbatim: no wrapping, no markup, no colours, no emoji codes."""
    lines = "\n".join(map(printable, text.split("\n")))
    console.print(Text(lines), soft_wrap=True)


def class_line(names: Sequence[str]) -> str:
    """The number of classes and their first names, in one line."""
    more = ", ..." if len(names) > _NAMED_CLASSES else ""
    first = ", ".join(map(printable, names[:_NAMED_CLASSES]))
    return f"{len(names):,} classes: {first}{more}"


def percent(share: float) -> str:
    """A share in [0, 1] as, for example, "97.53 %"."""
    return f"{100 * share:.2f} %"


def duration(seconds: float) -> str:
    """Seconds as "M:SS", or "H:MM:SS" from an hour on."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def interval_text(name: str, interval: tuple[float, float] | None) -> str:
    """An interval of a figure, such as `91.2 to 93.8`, in the figure's unit."""
    if interval is None:
        return ""
    low, high = interval
    if name.endswith("loss"):
        return f"{low:.4f} to {high:.4f}"
    return f"{100 * low:.2f} to {100 * high:.2f}"


class FigureRow(NamedTuple):
    """A figure of an evaluation, for people.

    Attributes:
      name: its name in `figures`.
      title: what it is.
      value: formatted.
    """

    name: str
    title: str
    value: str


def figure_rows(figures: Mapping[str, float], classes: int) -> list[FigureRow]:
    """An evaluation's figures as rows of a table, the main one first.

    Args:
      figures: `accuracy`, `top5_accuracy` and `loss`; and `balanced_accuracy`, which
        is shown where it is not the accuracy. With several classes per image `loss`,
        `accuracy` and `mean_average_precision`.
      classes: number of classes; with five or fewer, there is no top-5 accuracy.
    """
    titles = {"accuracy": "accuracy"}
    if "mean_average_precision" in figures:
        titles = {
            "mean_average_precision": "mean average precision",
            "accuracy": "all classes right",
        }
    elif classes > 5:
        titles["top5_accuracy"] = "top-5 accuracy"
    balanced = figures.get("balanced_accuracy", figures["accuracy"])
    if percent(balanced) != percent(figures["accuracy"]):
        titles["balanced_accuracy"] = "balanced accuracy"
    rows = [FigureRow(k, title, percent(figures[k])) for k, title in titles.items()]
    return [*rows, FigureRow("loss", "loss", f"{figures['loss']:.4f}")]
