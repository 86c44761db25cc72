"""Tables in Markdown, and how numbers stand in them."""

from collections.abc import Iterable, Sequence

__all__ = ["millions", "percent", "spread", "table"]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; columns of numbers are set to the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    numeric = [
        all(row[i] == "" or row[i][0] in "0123456789+-" for row in rows)
        for i in range(len(header))
    ]
    rules = ["---:" if right else "---" for right in numeric]
    lines = [header, rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def millions(number: float) -> str:
    """Such as "25.56 M": four digits or three."""
    value = number / 1e6
    return f"{value:,.{max(0, 2 - len(str(int(value))) // 2)}f} M"


def percent(share: float) -> str:
    """Of a share in [0, 1], such as "97.5 %"."""
    return f"{100 * share:.1f} %"


def spread(values: Sequence[float], form: str) -> str:
    """Mean and range over the seeds, such as "0.12 (0.10 to 0.15)"."""
    mean = sum(values) / len(values)
    return f"{mean:{form}} ({min(values):{form}} to {max(values):{form}})"
