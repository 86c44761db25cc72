"""Assembles the page."""

from benchmarks.pages.architectures import counted, trained
from benchmarks.pages.architectures.experiments import read
from benchmarks.pages.architectures.overview import overview

__all__ = ["page"]

_HEAD = """# Architectures and their ideas in numbers

`python -m benchmarks.pages.architectures` writes this page and its pictures."""

_PICTURE = """![Accuracy over multiply-adds](pictures/accuracy_and_cost.png)

Accuracy of torchvision's first weights of each net, at their resolution. EfficientNet's
weights were trained with another recipe and more augmentation, so the architecture
explains only part of their lead."""


def page() -> str:
    """Returns the page in Markdown."""
    rows = read()
    sections = [
        _HEAD,
        overview(),
        _PICTURE,
        trained.setting([row for some in rows.values() for row in some]),
        trained.norm(rows["norm"]),
        counted.small_kernels(),
        counted.inception(),
        trained.depth(rows["depth"]),
        trained.dense(rows["dense"], counted.whole_nets()),
        trained.deform(rows["deform"]),
        counted.squeeze_and_excitation(),
        counted.scaling(),
    ]
    return "\n\n".join(sections) + "\n"
