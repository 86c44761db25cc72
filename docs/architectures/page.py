"""The page, put together."""

from docs.architectures import ideas, measured
from docs.architectures.overview import overview
from docs.architectures.results import read

__all__ = ["page"]

_HEAD = """# Architectures, and their ideas in numbers

`python -m docs.architectures` writes this page and its pictures."""

_PICTURE = """![Accuracy over multiply-adds](pictures/accuracy_and_cost.png)

Torchvision's first weights of each net, at the size that they are for. EfficientNet's
come from other trainings, with more augmentation: not all of the distance is the
architecture's."""


def page() -> str:
    """The whole page, in Markdown."""
    rows = read()
    sections = [
        _HEAD,
        overview(),
        _PICTURE,
        measured.setting([row for some in rows.values() for row in some]),
        measured.norm(rows["norm"]),
        ideas.small_kernels(),
        ideas.inception(),
        measured.depth(rows["depth"]),
        measured.dense(rows["dense"], ideas.whole_nets()),
        measured.deform(rows["deform"]),
        ideas.squeeze_and_excitation(),
        ideas.scaling(),
    ]
    return "\n\n".join(sections) + "\n"
