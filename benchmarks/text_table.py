"""Tables as plain text that fits in a number of columns."""

import textwrap
from collections.abc import Iterator, Sequence

__all__ = ["text_tables"]

_GAP = "  "
_LEAST = 24  # Columns for the lines' names, before figures go to another table.
_TEXTS = ("benchmark", "case", "candidate", "reader")
_LONG_TEXT = "not measured"  # Of any length, so it stands below a narrow table.

_Lines = Sequence[Sequence[str]]


def text_tables(headings: Sequence[str], lines: _Lines, width: int) -> str:
    """Formats a table with at most `width` columns of text.

    If the table is too wide, each case with several lines gets a table of its own under
    its name, and errors go below it. What is still too wide continues in a second
    table with the same lines.

    Args:
      headings: of the columns; the first column names the lines.
      lines: the cells. An empty "case" is that of the line before.
      width: columns of text; below 40, it counts as 40.

    Returns:
      The table, or tables with an empty line between them.
    """
    width = max(width, 40)
    if _width(headings, lines) <= width:
        return "\n".join(_table(headings, lines))
    if headings[0] != "case":
        return "\n\n".join(_split(headings, lines, width))
    cases: list[list[Sequence[str]]] = []
    for line in lines:
        if line[0] or not cases:
            cases.append([])
        cases[-1].append(line)
    if all(len(case) == 1 for case in cases):
        return _without_errors(headings, lines, width)
    return "\n\n".join(
        "\n".join(textwrap.wrap(case[0][0], width))
        + "\n"
        + textwrap.indent(
            _without_errors(headings[1:], [line[1:] for line in case], width - 2), "  "
        )
        for case in cases
    )


def _without_errors(headings: Sequence[str], lines: _Lines, width: int) -> str:
    """Tables without the errors and empty columns, and the errors below them."""
    shown = [
        i
        for i, heading in enumerate(headings)
        if heading != _LONG_TEXT and any(line[i] for line in lines)
    ]
    errors = []
    if _LONG_TEXT in headings:
        at = headings.index(_LONG_TEXT)
        errors = [f"{line[0]}: {line[at]}" for line in lines if line[at]]
    figures = [[line[i] for i in shown] for line in lines]
    parts = list(_split([headings[i] for i in shown], figures, width))
    if errors:
        text = [f"{_LONG_TEXT}:"]
        for error in errors:
            text += textwrap.wrap(
                error, width, initial_indent="  ", subsequent_indent="    "
            )
        parts.append("\n".join(text))
    return "\n\n".join(parts)


def _split(headings: Sequence[str], lines: _Lines, width: int) -> Iterator[str]:
    """Yields tables that begin with the first column, and have the others in turn."""
    names = [line[0] for line in lines]
    # A second column of text ("candidate") belongs to the name.
    first = next((i for i, h in enumerate(headings) if h not in _TEXTS), len(headings))
    if first > 1:
        names = [", ".join(filter(None, line[:first])) for line in lines]
    columns = list(range(max(first, 1), len(headings)))
    least = min(_LEAST, max(map(len, [headings[0], *names])))
    while True:
        taken: list[int] = []
        used = least
        while columns:
            more = len(_GAP) + _column_width(headings, lines, columns[0])
            if taken and used + more > width:
                break
            used += more
            taken.append(columns.pop(0))
        shown = [
            [name, *(line[i] for i in taken)]
            for name, line in zip(names, lines, strict=True)
        ]
        heads = [headings[0], *(headings[i] for i in taken)]
        yield "\n".join(_table(heads, shown, least + max(width - used, 0)))
        if not columns:
            return


def _table(
    headings: Sequence[str], lines: _Lines, longest: int | None = None
) -> Iterator[str]:
    """Yields a table's lines; its first column wraps at `longest`."""
    widths = [_column_width(headings, lines, i) for i in range(len(headings))]
    widths[0] = max(map(len, [headings[0], *(line[0] for line in lines)]))
    widths[0] = min(widths[0], longest or widths[0])
    head = [textwrap.wrap(h, w) for h, w in zip(headings, widths, strict=True)]
    rows = max(map(len, head))
    for row in range(rows):
        # At the bottom of the head, next to the figures.
        yield _line(
            [(h[row - rows + len(h)] if row >= rows - len(h) else "") for h in head],
            widths,
            headings,
        )
    yield _GAP.join("-" * w for w in widths)
    for name, *cells in lines:
        name, *more = textwrap.wrap(name, widths[0], subsequent_indent="  ") or [""]
        yield _line([name, *cells], widths, headings)
        yield from more


def _line(cells: Sequence[str], widths: Sequence[int], headings: Sequence[str]) -> str:
    """One line: texts begin at the left, figures end at the right."""
    padded = []
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - len(cell))
        is_text = i == 0 or headings[i] in (*_TEXTS, _LONG_TEXT)
        padded.append(cell + space if is_text else space + cell)
    return _GAP.join(padded).rstrip()


def _width(headings: Sequence[str], lines: _Lines) -> int:
    columns = [_column_width(headings, lines, i) for i in range(len(headings))]
    return sum(columns) + len(_GAP) * (len(columns) - 1)


def _column_width(headings: Sequence[str], lines: _Lines, column: int) -> int:
    """Columns of text that a heading's longest word and the cells take."""
    words = headings[column].split()
    return max(map(len, [*words, *(line[column] for line in lines)]))
