"""Console output: plain lines, and the numbers in tables."""

from collections.abc import Mapping, Sequence

from rich.console import Console

__all__ = ["class_line", "duration", "figure_rows", "percent", "say"]

_NAMED_CLASSES = 5


def say(console: Console, text: str) -> None:
    """Prints a line verbatim: no wrapping, no markup, no colours."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def class_line(names: Sequence[str]) -> str:
    """The number of classes and their first names, in one line."""
    more = ", ..." if len(names) > _NAMED_CLASSES else ""
    return f"{len(names):,} classes: {', '.join(names[:_NAMED_CLASSES])}{more}"


def percent(share: float) -> str:
    """A share in [0, 1] as, for example, "97.53 %"."""
    return f"{100 * share:.2f} %"


def duration(seconds: float) -> str:
    """Seconds as "M:SS", or "H:MM:SS" from an hour on."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def figure_rows(figures: Mapping[str, float], classes: int) -> list[tuple[str, str]]:
    """An evaluation's figures as rows of a table: names and formatted values.

    Args:
      figures: `accuracy`, `top5_accuracy` and `loss`.
      classes: number of classes; with five or fewer, there is no top-5 accuracy.
    """
    rows = [("accuracy", percent(figures["accuracy"]))]
    if classes > 5:
        rows.append(("top-5 accuracy", percent(figures["top5_accuracy"])))
    return [*rows, ("loss", f"{figures['loss']:.4f}")]
