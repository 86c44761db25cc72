"""The page's table of papers."""

import re

import cnn_flax
from benchmarks.pages.markdown import millions, table
from benchmarks.plot import accuracy
from cnn_flax.analysis import receptive_field
from cnn_flax.analysis.receptive_field import pixels

__all__ = ["overview"]

# A selection of models, and the last map of each.
_MODELS = {
    "alexnet_lrn": "pool5",
    "vgg16": "stage5",
    "googlenet_lrn": "stage5",
    "resnet50": "stage4",
    "wide_resnet50_2": "stage4",
    "densenet121": "stage4",
    "resnext50_32x4d": "stage4",
    "resnet50_dcn": "stage4",
    "seresnet50": "stage4",
    "resnet50d": "stage4",
    "resnet50_dcnv2": "stage4",
    "efficientnet_b0": "stage7",
    "efficientnet_b7": "stage7",
}
# Models whose accuracy is shown where the paper's net has no weights.
_STAND_INS = {"alexnet_lrn": "alexnet", "googlenet_lrn": "googlenet"}


def overview() -> str:
    """Returns the section."""
    return f"""## The papers

{table(_HEADER, [_row(name, last) for name, last in _MODELS.items()])}

Depth is the number of weighted layers on the longest path, as the papers count.
Parameters are for 1,000 classes, GoogLeNet's without its auxiliary heads. Multiply-adds
are those of convolutions and dense layers, per image of the given size. The receptive
field is that of the last feature map, in pixels. It leaves out squeeze and excitation,
which sees the whole image; with deformable convolutions, it is that of a net with zero
offsets. Accuracy is top-1 on ImageNet's validation images, as published with the first
of `model_info(name).weights`; an empty cell means that none is published. For the
papers' AlexNet and GoogLeNet, it is that of torchvision's variants, `alexnet` and
`googlenet`. Training recipes improved too, so accuracies of different years compare
architectures only roughly."""


_HEADER = (
    "model",
    "paper",
    "year",
    "depth",
    "px",
    "parameters",
    "multiply-adds",
    "receptive field",
    "accuracy",
)


def _row(name: str, last: str) -> list[object]:
    info = cnn_flax.model_info(name)
    authors, year, _ = re.split(r" (\d{4}), ", info.paper, maxsplit=1)
    link = info.paper.rpartition(", ")[2]
    names = re.split(r", | and ", authors)
    citation = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
    model = cnn_flax.create_model(name)
    summary = cnn_flax.summary(model, info.image_size)
    field = receptive_field(model, info.image_size, last, ignore_global=True)
    top1 = accuracy(_STAND_INS.get(name, name))
    return [
        f"`{name}`",
        f"[{citation}]({link})",
        year,
        info.depth,
        info.image_size,
        millions(sum(b.parameters for b in summary.blocks if b.output_shape)),
        millions(summary.multiply_adds),
        pixels(field.size) + (", deformable" if field.data_dependent else ""),
        "" if top1 is None else f"{top1:.1f} %",
    ]
