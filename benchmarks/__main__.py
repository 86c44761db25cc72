"""Measures the project, each figure against a peer in the same run.

python -m benchmarks [NAME ..]              runs some or all benchmarks
python -m benchmarks compare A.json B.json  reports what changed beyond the spread
"""

import argparse
import datetime
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from benchmarks.compare import compare_files
from benchmarks.measurements import Measurements, Row, new_header, write
from benchmarks.options import Options
from benchmarks.tables import OURS, tabulate
from benchmarks.worker_process import WorkerError
from cnn_flax.registry import UnknownModelError, nearest
from train.console import literal, say
from train.errors import StorageError, UserError

__all__ = ["BENCHMARKS", "main"]

BENCHMARKS = (
    "inference",
    "training",
    "operators",
    "deform_conv",
    "augmentation",
    "input",
    "scaling",
    "compile",
    "growth",
    "labelling_memory",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments[:1] == ["compare"]:
            _compare(arguments[1:])
        else:
            _run(arguments)
    except (StorageError, UnknownModelError, UserError) as error:
        sys.exit(f"error: {error}")


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    flags = parser.parse_args(arguments)
    for name in flags.names:
        if name not in BENCHMARKS:
            parser.error(
                f"There is no benchmark {name!r}. {nearest(name, BENCHMARKS)} "
                f"There are: {', '.join(BENCHMARKS)}."
            )
    if flags.plot and flags.names and "inference" not in flags.names:
        parser.error(
            "--plot draws figures of `inference`, which is not among the names."
        )
    # Benchmarks share the device with their worker processes.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    fields = set(Options.__dataclass_fields__) & set(vars(flags))
    options = Options(**{name: getattr(flags, name) for name in fields})
    if options.quick:
        # Compile without optimizations, here and in the worker processes.
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)
    header = new_header(arguments)
    console = _console()
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
        try:
            for row in module.measure(options):
                rows.append({"benchmark": name, **row})
                # Written after every row, so that a failure loses nothing.
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
            module.plot(measured, picture)
            say(console, f"Picture: {picture}")
        say(console, f"Raw results: {path}")
    if failed:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"any of: {', '.join(BENCHMARKS)}; by default all",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="check in seconds that each benchmark works; the figures mean nothing",
    )
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("runs", "benchmarks", now),
        metavar="PATH",
        help="where to write raw results: a file that ends in .json, or a folder for "
        "one file per benchmark; by default runs/benchmarks/NOW",
    )
    parser.add_argument(
        "--plot",
        action="store_true",
        help="draw published accuracy against the measured throughput of inference, "
        "next to the raw results; with --models all, for every model that has both",
    )
    parser.add_argument(
        "--blocks", type=_at_least(2), help="number of turns per candidate"
    )
    parser.add_argument("--block-seconds", type=float, help="duration of a turn")
    models = parser.add_argument_group("inference and training")
    models.add_argument(
        "--models",
        type=_words,
        metavar="NAME,..",
        help="or all: every model with published accuracy",
    )
    models.add_argument(
        "--candidates",
        type=_words,
        metavar="NAME,..",
        help="candidates to measure, in any benchmark",
    )
    models.add_argument("--batch-size", type=_at_least(1))
    models.add_argument("--image-size", type=_at_least(1))
    models.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def _console() -> Console:
    # Files and pipes take long lines.
    return Console(width=None if sys.stdout.isatty() else 160)


def _is_file(path: Path) -> bool:
    return path.suffix == ".json"


def _print(
    console: Console, title: str, headings: Sequence[str], lines: Sequence[list[str]]
) -> None:
    table = Table(title=title)
    for heading in headings:
        is_text = heading in ("benchmark", "case", "candidate", "not measured")
        table.add_column(heading, justify="left" if is_text else "right")
    for line in lines:
        table.add_row(*map(literal, line))
    console.print(table)


def _compare(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare",
        description="Reports which times changed beyond the spread of both files.",
    )
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    flags = parser.parse_args(arguments)
    comparison = compare_files(flags.before, flags.after)
    console = _console()
    for difference in comparison.differing:
        say(console, f"The files differ in {difference}.")
    lines = [
        [
            *change.name,
            f"{change.before * 1e3:,.2f}",
            f"{change.after * 1e3:,.2f}",
            f"{change.ratio:.2f}",
            f"{max(change.spread):.0%}",
        ]
        for change in comparison.changed
    ]
    if lines:
        _print(console, "changes beyond the spread", _COMPARED, lines)
    console.print(
        f"{len(lines)} changed beyond the spread, {comparison.unchanged} did not; "
        f"{len(comparison.only_in_one)} are only in one file.",
        highlight=False,
    )


_COMPARED = ("benchmark", "case", "candidate", "A ms", "B ms", "B / A", "spread")


if __name__ == "__main__":
    main()
