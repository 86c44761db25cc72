"""`counting`: how many of a number are done, for commands that take a while."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["counting"]


@contextlib.contextmanager
def counting(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Shows on a terminal's standard error how many of a number are done.

    Standard output stays free for the result.

    Args:
      total: the number of all.
      what: what is counted.

    Yields:
      A function to call after each.
    """
    console = Console(stderr=True)
    columns = BarColumn(), TimeRemainingColumn(compact=True)
    bar = Progress(
        TextColumn(what),
        MofNCompleteColumn(),
        *columns,
        console=console,
        # Colours may be forced for a log, but a log has no line to draw again.
        disable=not (console.is_terminal and sys.stderr.isatty()),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total)
        yield partial(bar.advance, task)
