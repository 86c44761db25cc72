"""Assembles the page."""

from benchmarks.measurements import read_lines
from benchmarks.pages.folders import MEASUREMENTS
from benchmarks.pages.results import (
    augmentation,
    consistency,
    few_labels,
    top_classes,
    transfer,
)

__all__ = ["EXPERIMENTS", "page"]

# Each module has `measure(runs)`, which yields rows, and `section(rows)`, which
# returns their Markdown.
EXPERIMENTS = {
    "few_labels": few_labels,
    "transfer": transfer,
    "augmentation": augmentation,
    "top_classes": top_classes,
    "consistency": consistency,
}

_HEAD = """# Results

How accurate the methods are where labels are few. `python -m benchmarks.pages.results`
writes this page from the raw results in [measurements](measurements), one line per run;
`python -m benchmarks.pages.results --measure NAME` measures them first."""


def page() -> str:
    """Returns the page in Markdown."""
    sections = [
        experiment.section(read_lines(MEASUREMENTS / f"{name}.jsonl"))
        for name, experiment in EXPERIMENTS.items()
    ]
    return "\n\n".join([_HEAD, *sections]) + "\n"
