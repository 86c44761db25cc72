"""The page, put together."""

from docs.results import augmentation, few_labels, rows, transfer

__all__ = ["EXPERIMENTS", "page"]

# Each has `measure(runs)`, which yields rows, and `section(rows)`, their Markdown.
EXPERIMENTS = {
    "few_labels": few_labels,
    "transfer": transfer,
    "augmentation": augmentation,
}

_HEAD = """# Results

What was gained where labels are few, and from what. `python -m docs.results` writes
this page from the raw results, a line a run, in [results](results);
`python -m docs.results --measure NAME` makes those again first."""


def page() -> str:
    """The whole page, in Markdown."""
    sections = [
        experiment.section(rows.read(name)) for name, experiment in EXPERIMENTS.items()
    ]
    return "\n\n".join([_HEAD, *sections]) + "\n"
