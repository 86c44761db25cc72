"""Writes the pages and README's table, after counting again if asked to."""

import argparse
import re

import benchmarks.pages.models
import cnn_flax
from benchmarks.pages.folders import DOCS
from benchmarks.pages.models.counted import counted, write_counts
from benchmarks.pages.models.page import (
    FAMILIES,
    family_page,
    overview_page,
    readme_table,
)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pages.models",
        description=benchmarks.pages.models.__doc__,
    )
    parser.add_argument(
        "--measure",
        nargs="*",
        metavar="MODEL",
        help="count again first; without a name, all models, which takes an hour",
    )
    options = parser.parse_args()
    if options.measure is not None:
        write_counts(options.measure or cnn_flax.list_models())
    rows = counted()
    (DOCS / "models" / "index.md").write_text(overview_page(rows), "utf-8")
    for family in FAMILIES:
        page = family_page(family, rows)
        (DOCS / "models" / f"{family}.md").write_text(page, "utf-8")
    readme = DOCS.parent / "README.md"
    table = re.compile(r"\| family \| models \|.*?(?=\n\n)", re.DOTALL)
    text = table.sub(lambda _: readme_table(rows), readme.read_text("utf-8"))
    readme.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
