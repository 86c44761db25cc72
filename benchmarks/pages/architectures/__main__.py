"""Writes the page and its pictures, after measuring again if asked to."""

import benchmarks.pages.architectures
from benchmarks.pages.architectures import pictures
from benchmarks.pages.architectures.experiments import EXPERIMENTS, measure, read
from benchmarks.pages.architectures.page import page
from benchmarks.pages.command import page_parser
from benchmarks.pages.folders import DOCS, PICTURES


def main() -> None:
    """Runs the command line."""
    options = page_parser(benchmarks.pages.architectures, EXPERIMENTS).parse_args()
    if options.measure is not None:
        measure(options.measure or EXPERIMENTS)
    (DOCS / "architectures.md").write_text(page(), "utf-8")
    for name, figure in (
        ("plain_and_residual", pictures.plain_and_residual(read()["depth"])),
        ("accuracy_and_cost", pictures.accuracy_and_cost()),
    ):
        figure.savefig(PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
