"""Measures the project, each figure against a peer in the same run.

python -m benchmarks [NAME ..]            runs benchmarks, or all
python -m benchmarks compare A.json B.json
                                          says what moved beyond the spread
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
    chosen = parser.parse_args(arguments)
    for name in chosen.names:
        if name not in BENCHMARKS:
            parser.error(
                f"There is no benchmark {name!r}. {nearest(name, BENCHMARKS)} "
                f"There are: {', '.join(BENCHMARKS)}."
            )
    if chosen.plot and chosen.names and "inference" not in chosen.names:
        parser.error("--plot draws what `inference` measures, which was not asked for.")
    # Benchmarks share the device with the processes that they start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    fields = set(Options.__dataclass_fields__) & set(vars(chosen))
    options = Options(**{name: getattr(chosen, name) for name in fields})
    if options.quick:
        # Nothing is compiled well, here and in the processes.
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)
    head = new_header(arguments)
    console = _console()
    for key, value in head.items():
        console.print(f"{key}: {value}", highlight=False)
    rows: list[Row] = []
    failed = False
    for name in chosen.names or BENCHMARKS:
        module = importlib.import_module(f"benchmarks.{name}")
        path = chosen.json
        if not _is_file(path):
            path, rows = path / f"{name}.json", []
        first = len(rows)
        try:
            for row in module.measure(options):
                rows.append({"benchmark": name, **row})
                # What is measured is kept, whatever comes after it.
                write(path, Measurements(head, rows))
        except WorkerError as error:
            failed = True
            console.print(f"{name} failed: {error}", highlight=False, markup=False)
        measured = rows[first:]
        # A peer may lack a model; what is ours may not.
        failed |= any(
            "error" in r and r["candidate"].startswith(OURS) for r in measured
        )
        _print(console, f"{name}: {module.TITLE}", *tabulate(measured, module.COLUMNS))
        if chosen.plot and hasattr(module, "plot"):
            picture = path.with_suffix(".png")
            module.plot(measured, picture)
            console.print(f"{picture} shows them.", highlight=False)
        console.print(f"{path} has the raw results.", highlight=False)
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
        help=f"some of: {', '.join(BENCHMARKS)}; all without it",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="show that each works, in seconds: its figures mean nothing",
    )
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("runs", "benchmarks", now),
        metavar="PATH",
        help="where the raw results go: a file that ends in .json, or a folder with a "
        "file a benchmark; by default runs/benchmarks/NOW",
    )
    parser.add_argument(
        "--plot",
        action="store_true",
        help="draw published accuracy against the measured throughput of inference, "
        "beside the raw results; --models all for every model that has both",
    )
    parser.add_argument(
        "--blocks", type=_at_least(2), help="turns that each candidate gets"
    )
    parser.add_argument("--block-seconds", type=float, help="how long a turn lasts")
    models = parser.add_argument_group("of inference and training")
    models.add_argument(
        "--models",
        type=_words,
        metavar="NAME,..",
        help="or all: those with published accuracy",
    )
    models.add_argument(
        "--candidates", type=_words, metavar="NAME,..", help="of all benchmarks"
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
    # In a file or a pipe, lines may be long.
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
        table.add_row(*line)
    console.print(table)


def _compare(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks compare",
        description="Says which times moved beyond the spread of both files.",
    )
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    chosen = parser.parse_args(arguments)
    found = compare_files(chosen.before, chosen.after)
    console = _console()
    for difference in found.differing:
        console.print(f"They differ in {difference}.", highlight=False)
    lines = [
        [
            *move.name,
            f"{move.before * 1e3:,.2f}",
            f"{move.after * 1e3:,.2f}",
            f"{move.ratio:.2f}",
            f"{max(move.spread):.0%}",
        ]
        for move in found.moved
    ]
    if lines:
        _print(console, "what moved beyond the spread", _COMPARED, lines)
    console.print(
        f"{len(lines)} moved beyond the spread, {found.still} did not; "
        f"{len(found.lone)} are in one file alone.",
        highlight=False,
    )


_COMPARED = ("benchmark", "case", "candidate", "A ms", "B ms", "B / A", "spread")


if __name__ == "__main__":
    main()
