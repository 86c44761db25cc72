"""Markdown tables and the format of their figures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.machine import measured_on

__all__ = [
    "mean_and_range",
    "millions",
    "percent",
    "percent_range",
    "source",
    "table",
]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table whose columns of numbers are aligned right."""
    rows = [[str(cell) for cell in row] for row in rows]
    numeric = [
        all(row[i] == "" or row[i][0] in "0123456789+-" for row in rows)
        for i in range(len(header))
    ]
    rules = ["---:" if right else "---" for right in numeric]
    lines = [header, rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def millions(number: float) -> str:
    """Formats a count in three or four digits, such as "25.6 M"."""
    value = number / 1e6
    return f"{value:,.{max(0, 2 - len(str(int(value))) // 2)}f} M"


def percent(share: float) -> str:
    """Formats a share in [0, 1], such as "97.5 %"."""
    return f"{100 * share:.1f} %"


def mean_and_range(values: Sequence[float], form: str, unit: str = "") -> str:
    """Formats mean, minimum and maximum, such as "0.12 (0.10 to 0.15)".

    Args:
      values: one per seed.
      form: format of each figure.
      unit: written after the mean.
    """
    mean = sum(values) / len(values)
    return f"{mean:{form}}{unit} ({min(values):{form}} to {max(values):{form}})"


def percent_range(shares: Sequence[float]) -> str:
    """Formats shares in [0, 1], such as "85.1 % (84.9 to 85.4)"."""
    return mean_and_range([100 * share for share in shares], ".1f", " %")


def source(file: str, command: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns a table's foot: raw results, command, date and machine.

    Args:
      file: in `docs/measurements`.
      command: measures the rows again.
      rows: of that file.
    """
    link = f"measurements/{file}"
    return f"""Raw results: [{link}]({link}), measured by
`{command}`
({measured_on(rows)})."""
