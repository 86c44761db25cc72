"""Writes the page and its pictures; measures again first where it is told to."""

from pathlib import Path

import docs.architectures
from docs.architectures import pictures
from docs.architectures.experiments import EXPERIMENTS
from docs.architectures.page import page
from docs.architectures.results import measure, read
from docs.command import page_parser

_DOCS = Path(__file__).parents[1]


def main() -> None:
    """Runs the command line."""
    options = page_parser(docs.architectures, EXPERIMENTS).parse_args()
    if options.measure is not None:
        measure(options.measure or EXPERIMENTS)
    (_DOCS / "architectures.md").write_text(page())
    for name, figure in (
        ("plain_and_residual", pictures.plain_and_residual(read()["depth"])),
        ("accuracy_and_cost", pictures.accuracy_and_cost()),
    ):
        figure.savefig(_DOCS / "pictures" / f"{name}.png")


if __name__ == "__main__":
    main()
