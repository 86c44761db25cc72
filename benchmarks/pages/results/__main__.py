"""Writes the page, after measuring again if asked to."""

from pathlib import Path

import benchmarks.pages.results
from benchmarks.measurements import read_lines, write_lines
from benchmarks.pages.command import page_parser
from benchmarks.pages.folders import DOCS, MEASUREMENTS, PICTURES
from benchmarks.pages.results import consistency
from benchmarks.pages.results.page import EXPERIMENTS, page
from train.compilation_cache import use_compilation_cache
from train.errors import UserError


def main() -> None:
    """Runs the command line."""
    parser = page_parser(benchmarks.pages.results, EXPERIMENTS)
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs", "results"),
        help="folder of the runs; runs that have finished there are not repeated",
    )
    options = parser.parse_args()
    if options.measure is not None:
        use_compilation_cache()
        try:
            for name in options.measure or EXPERIMENTS:
                measured = EXPERIMENTS[name].measure(options.runs / name)
                write_lines(MEASUREMENTS / f"{name}.jsonl", measured)
        except UserError as error:
            parser.exit(1, f"{error}\n")
    (DOCS / "results.md").write_text(page(), "utf-8")
    rows = read_lines(MEASUREMENTS / "consistency.jsonl")
    consistency.picture(rows).savefig(PICTURES / "thresholds.png")


if __name__ == "__main__":
    main()
