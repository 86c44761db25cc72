"""`python -m benchmarks [NAME] [--quick]`: runs one benchmark, or all."""

import argparse
import importlib

from benchmarks.timing import header
from cnn_flax.registry import nearest

BENCHMARKS = ("labelling_memory", "operators")


def main() -> None:
    """Parses the command line and prints a table a benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "name", nargs="?", help=f"one of: {', '.join(BENCHMARKS)}; all without it"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="show that each works, in seconds: its figures mean nothing",
    )
    arguments = parser.parse_args()
    if arguments.name and arguments.name not in BENCHMARKS:
        parser.error(
            f"There is no benchmark {arguments.name!r}. "
            f"{nearest(arguments.name, BENCHMARKS)} There are: {', '.join(BENCHMARKS)}."
        )

    from rich.console import Console
    from rich.table import Table

    console = Console()
    for key, value in header().items():
        console.print(f"{key}: {value}", highlight=False)
    for name in [arguments.name] if arguments.name else BENCHMARKS:
        module = importlib.import_module(f"benchmarks.{name}")
        columns, rows = module.run(quick=arguments.quick)
        table = Table(title=f"{name}: {module.TITLE}")
        for i, column in enumerate(columns):
            table.add_column(column, justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)


if __name__ == "__main__":
    main()
