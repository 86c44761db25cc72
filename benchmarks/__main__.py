"""Measures the project, each figure against a peer in the same run.

python -m benchmarks [NAME ..]              runs some or all benchmarks
python -m benchmarks compare A.json B.json  reports what changed beyond the spread
python -m benchmarks gpu                    measures a GPU in order of worth, in time
python -m benchmarks fuzz --inputs N        gives hostile files to every reader
"""

import argparse
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console

from benchmarks import gpu
from benchmarks.compare import compare_files
from benchmarks.flags import BENCHMARKS, STANDARD_OUTPUT, parse
from benchmarks.measurements import Measurements, Row, new_header, write
from benchmarks.options import Options
from benchmarks.tables import OURS, tabulate
from benchmarks.text_table import text_tables
from benchmarks.worker_process import WorkerError
from cnn_flax.registry import UnknownModelError
from train.console import printable, say
from train.errors import StorageError, UserError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments[:1] == ["compare"]:
            _compare(arguments[1:])
        elif arguments[:1] == ["gpu"]:
            gpu.main(arguments[1:], _console())
        elif arguments[:1] == ["fuzz"]:
            from benchmarks import fuzz  # Its readers take long to import.

            fuzz.main(arguments[1:], _console())
        else:
            _run(arguments)
    except (StorageError, UnknownModelError, UserError) as error:
        sys.exit(f"error: {error}")


def _run(arguments: Sequence[str]) -> None:
    flags = parse(arguments, __doc__)
    prints_rows = flags.json == STANDARD_OUTPUT
    # Benchmarks share the device with their worker processes.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    fields = set(Options.__dataclass_fields__) & set(vars(flags))
    options = Options(**{name: getattr(flags, name) for name in fields})
    if options.quick:
        # Compile without optimizations, here and in the worker processes.
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)
    header = new_header(arguments)
    # With rows on the standard output, all else is on the other one.
    console = Console(stderr=True, width=80) if prints_rows else _console()
    for key, value in header.items():
        say(console, f"{key}: {value}")
    rows: list[Row] = []
    failed = False
    for name in flags.names or BENCHMARKS:
        module = importlib.import_module(f"benchmarks.{name}")
        path = flags.json
        if not _is_file(path):
            path, rows = path / f"{name}.json", []
        first = len(rows)
        if flags.profile:
            profiles = path.with_suffix(".profile")
            options = dataclasses.replace(options, profiles=profiles)
        try:
            for row in module.measure(options):
                rows.append({"benchmark": name, **row})
                # Written after every row, so that a failure loses nothing.
                if prints_rows:
                    print(json.dumps(rows[-1]), flush=True)
                else:
                    write(path, Measurements(header, rows))
        except WorkerError as error:
            failed = True
            say(console, f"{name} failed: {error}")
        measured = rows[first:]
        # A peer may lack a model; ours may not.
        failed |= any(
            "error" in r and r["candidate"].startswith(OURS) for r in measured
        )
        _print(console, f"{name}: {module.TITLE}", *tabulate(measured, module.COLUMNS))
        if flags.plot and hasattr(module, "plot"):
            picture = path.with_suffix(".png")
            module.plot(measured, picture, header)
            say(console, f"Picture: {picture}")
        if not prints_rows:
            say(console, f"Raw results: {path}")
    if failed:
        sys.exit(1)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 80)


def _is_file(path: Path) -> bool:
    return path.suffix == ".json"


def _print(
    console: Console, title: str, headings: Sequence[str], lines: Sequence[list[str]]
) -> None:
    shown = [list(map(printable, line)) for line in lines]
    say(console, f"\n{title}\n\n{text_tables(headings, shown, console.width)}\n")


def _compare(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare",
        description="Reports which times changed beyond the spread of both files.",
    )
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    parser.add_argument(
        "--json", action="store_true", help="print the changes as JSON lines"
    )
    flags = parser.parse_args(arguments)
    comparison = compare_files(flags.before, flags.after)
    if flags.json:
        for change in comparison.changed:
            print(json.dumps(change.as_row()))
        return
    console = _console()
    for difference in comparison.differing:
        say(console, f"The files differ in {difference}.")
    lines = [
        [
            f"{change.name[0]}: {change.name[1]}",
            change.name[2],
            f"{change.before * 1e3:,.2f}",
            f"{change.after * 1e3:,.2f}",
            f"{change.ratio:.2f}",
            f"{max(change.spread):.0%}",
        ]
        for change in comparison.changed
    ]
    if lines:
        _print(console, "changes beyond the spread", _COMPARED, lines)
    say(
        console,
        f"{len(lines)} changed beyond the spread, {comparison.unchanged} did not; "
        f"{len(comparison.only_in_one)} are only in one file.",
    )


_COMPARED = ("case", "candidate", "A ms", "B ms", "B / A", "spread")


if __name__ == "__main__":
    main()
