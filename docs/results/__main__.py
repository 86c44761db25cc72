"""Writes the page; measures again first where it is told to."""

from pathlib import Path

import docs.results
from docs.command import page_parser
from docs.results import rows
from docs.results.page import EXPERIMENTS, page
from train.compilation import use_compilation_cache
from train.errors import UserError

_DOCS = Path(__file__).parents[1]


def main() -> None:
    """Runs the command line."""
    parser = page_parser(docs.results, EXPERIMENTS)
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs", "results"),
        help="folder of the runs; those that have ended there are not run again",
    )
    options = parser.parse_args()
    if options.measure is not None:
        use_compilation_cache()
        try:
            for name in options.measure or EXPERIMENTS:
                rows.write(name, EXPERIMENTS[name].measure(options.runs / name))
        except UserError as error:
            parser.exit(1, f"{error}\n")
    (_DOCS / "results.md").write_text(page())


if __name__ == "__main__":
    main()
