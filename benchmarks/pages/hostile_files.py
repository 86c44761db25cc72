"""The table of hostile files in docs/robustness.md, from docs/measurements/fuzz.jsonl.

python -m benchmarks.pages.hostile_files    writes it anew
"""

from collections.abc import Sequence

from benchmarks.measurements import Row, read_lines
from benchmarks.pages.folders import DOCS, MEASUREMENTS
from benchmarks.pages.markdown import table

__all__ = ["hostile_files", "main"]

_BEGIN, _END = "<!-- begin: hostile files -->\n", "<!-- end: hostile files -->\n"
_COUNTS = ("inputs", "read", "refused", "other", "memory", "code", "crashed", "hung")
_HEADER = (
    *("reader", "inputs", "read", "refused", "other exceptions", "out of memory"),
    *("code ran", "crashed", "hung", "peak memory, MB", "slowest, ms of CPU"),
)


def hostile_files(rows: Sequence[Row]) -> str:
    """The table, with a line of totals, and what it was measured with."""
    lines = [
        [
            row["reader"].replace("_", " "),
            *(f"{row[name]:,}" for name in _COUNTS),
            f"{row['peak_megabytes']:.1f}",
            f"{row['slowest_milliseconds']:.1f}",
        ]
        for row in rows
    ]
    totals = [f"{sum(row[name] for row in rows):,}" for name in _COUNTS]
    most = [
        f"{max(row[name] for row in rows):.1f}"
        for name in ("peak_megabytes", "slowest_milliseconds")
    ]
    versions = ", ".join(
        f"{name} {rows[0][key]}"
        for name, key in (
            *(("Python", "python"), ("NumPy", "numpy"), ("Pillow", "pillow")),
            *(("safetensors", "safetensors"), ("pyarrow", "pyarrow"), ("JAX", "jax")),
        )
    )
    return (
        f"{table(_HEADER, [*lines, ['all', *totals, *most]])}\n\n"
        f"Seed {rows[0]['seed']}, {rows[0]['date']}; {versions}. Raw results: "
        "[fuzz.jsonl](measurements/fuzz.jsonl).\n"
    )


def main() -> None:
    """Writes the table between its marks."""
    page = DOCS / "robustness.md"
    head, _, rest = page.read_text("utf-8").partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    section = hostile_files(read_lines(MEASUREMENTS / "fuzz.jsonl"))
    page.write_text(f"{head}{_BEGIN}\n{section}\n{_END}{tail}", "utf-8")


if __name__ == "__main__":
    main()
