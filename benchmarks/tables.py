"""Tables of measurements, for the terminal and for pages."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.measurements import Row

__all__ = ["IN_PARTS", "OURS", "Columns", "tabulate"]

# Name of a figure, its format, and optionally a factor.
Column = tuple[str, str] | tuple[str, str, float]
# Heading -> column.
Columns = Mapping[str, Column]

OURS = "ours"
IN_PARTS = "ours in parts"  # A few images at a time.


def tabulate(
    rows: Sequence[Row], columns: Columns
) -> tuple[list[str], list[list[str]]]:
    """Makes a table with one line per row, without columns that are empty.

    If a case has the candidate "ours", the other candidates' lines have the ratio of
    their time to its time: how many times faster ours is. Rows with `limit` are no
    candidates.

    Args:
      rows: of one benchmark.
      columns: columns in addition to the time.

    Returns:
      Headings and lines.
    """
    ours = {row["case"]: row.get("median") for row in rows if row["candidate"] == OURS}

    def ratio(row: Row) -> str:
        median, of_ours = row.get("median"), ours.get(row["case"])
        if row["candidate"] == OURS or None in (median, of_ours) or "limit" in row:
            return ""
        return f"{median / of_ours:.2f}"  # pyright: ignore[reportOptionalOperand]

    shown: dict[str, Callable[[Row], str]] = {
        "case": lambda row: row["case"],
        "candidate": lambda row: row["candidate"],
        "ms": lambda row: _figure(row, ("median", ",.2f", 1e3)),
        "spread": lambda row: _figure(row, ("spread", ".0%")),
    }
    for heading, column in columns.items():
        shown[heading] = lambda row, column=column: _figure(row, column)
    shown["ours faster by"] = ratio
    shown["not measured"] = lambda row: row.get("error", "")
    lines = [{heading: show(row) for heading, show in shown.items()} for row in rows]
    headings = [h for h in shown if any(line[h] for line in lines)]
    for before, line in reversed(list(pairwise(lines))):
        if line["case"] == before["case"]:
            line["case"] = ""  # Same case.
    return headings, [[line[h] for h in headings] for line in lines]


def _figure(row: Row, column: Column) -> str:
    name, form, *factor = column
    value: Any = row.get(name)
    return "" if value is None else format(value * factor[0] if factor else value, form)
