"""The page's pictures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import cnn_flax
from benchmarks.measurements import Row
from benchmarks.pages.architectures.trained import groups
from benchmarks.plot import Point, accuracy, draw_models
from cnn_flax.style import BLUE, GREEN, INK, SKY, finish, new_figure

__all__ = ["accuracy_and_cost", "plain_and_residual"]

# From light to dark, so that they differ in grey too.
_DEPTHS = (SKY, GREEN, BLUE, INK)
_FAMILIES = {
    "AlexNet": "alexnet",
    "VGG": "vgg??",
    "VGG with BatchNorm": "vgg??_bn",
    "GoogLeNet": "googlenet",
    "ResNet": "resnet*",
    "ResNeXt": "resnext*",
    "Wide ResNet": "wide_resnet*",
    "DenseNet": "densenet*",
    "EfficientNet": "efficientnet*",
}


def plain_and_residual(rows: Sequence[Row]) -> Figure:
    """Plots training loss over epochs: plain nets left, residual nets right."""
    figure = new_figure(10, 4)
    axes = figure.subplots(1, 2, sharey=True)
    runs = groups(rows, "net", "depth")
    depths = sorted({row["depth"] for row in rows})
    for ax, net in zip(axes, ("plain", "residual"), strict=True):
        for layers, color in zip(depths, _DEPTHS, strict=True):
            curves = np.array([row["loss"] for row in runs[net, layers]])
            epochs = np.arange(1, curves.shape[1] + 1)
            ax.plot(epochs, curves.mean(0), color=color, label=f"{layers} layers")
            ax.fill_between(
                epochs, curves.min(0), curves.max(0), color=color, alpha=0.15, lw=0
            )
        ax.set(title=f"{net} nets", xlabel="epoch", yscale="log")
        finish(ax)
    axes[0].set_ylabel("training loss (nats)")
    axes[0].legend(frameon=False)
    return figure


def accuracy_and_cost() -> Figure:
    """Plots top-1 accuracy of torchvision's first weights over multiply-adds."""
    models = [
        point
        for family, pattern in _FAMILIES.items()
        for name in cnn_flax.list_models(pattern)
        if (point := _point(family, name))
    ]
    return draw_models(
        models,
        "multiply-adds per image",
        "Published accuracy against cost, each net at its resolution",
        lower_is_better=True,
    )


def _point(family: str, name: str) -> Point | None:
    """A model's multiply-adds and accuracy; None if torchvision has no weights."""
    if (top1 := accuracy(name)) is None:
        return None
    size = cnn_flax.model_info(name).weights[0].image_size
    summary = cnn_flax.summary(cnn_flax.create_model(name), size)
    return Point(family, name, summary.multiply_adds, top1)
