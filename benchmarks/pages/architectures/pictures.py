"""The page's pictures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import cnn_flax
from benchmarks.axes import finish
from benchmarks.measurements import Row
from benchmarks.pages.architectures.trained import groups
from benchmarks.plot import accuracy

__all__ = ["accuracy_and_cost", "plain_and_residual"]

_DPI = 150
# Differ in hue and in lightness, so that they differ in grey too.
_DEPTHS = ("#93c5fd", "#60a5fa", "#1d4ed8", "#172554")
_FAMILIES = {
    "AlexNet": ("alexnet", "#78716c", "X"),
    "VGG": ("vgg??", "#ca8a04", "s"),
    "VGG with BatchNorm": ("vgg??_bn", "#a16207", "D"),
    "GoogLeNet": ("googlenet", "#be185d", "P"),
    "ResNet": ("resnet*", "#1d4ed8", "o"),
    "ResNeXt": ("resnext*", "#0891b2", "^"),
    "Wide ResNet": ("wide_resnet*", "#7e22ce", "v"),
    "DenseNet": ("densenet*", "#15803d", "h"),
    "EfficientNet": ("efficientnet*", "#c2410c", "*"),
}


def plain_and_residual(rows: Sequence[Row]) -> Figure:
    """Plots training loss over epochs: plain nets left, residual nets right."""
    figure = Figure(figsize=(10, 4), dpi=_DPI, layout="constrained")
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
    figure = Figure(figsize=(9, 5), dpi=_DPI, layout="constrained")
    ax = figure.subplots()
    for family, (pattern, color, marker) in _FAMILIES.items():
        points = map(_point, cnn_flax.list_models(pattern))
        costs, accuracies = zip(*sorted(filter(None, points)), strict=True)
        ax.plot(
            costs,
            accuracies,
            color=color,
            marker=marker,
            label=family,
            linewidth=1,
            markersize=9 if marker == "*" else 6,
        )
    ax.set(xlabel="multiply-adds per image", ylabel="ImageNet top-1 (%)")
    ax.set_xscale("log")
    ax.legend(frameon=False, loc="lower right", ncols=2)
    finish(ax)
    return figure


def _point(name: str) -> tuple[int, float] | None:
    """Multiply-adds and accuracy; None if torchvision has no weights."""
    if (top1 := accuracy(name)) is None:
        return None
    size = cnn_flax.model_info(name).weights[0].image_size
    summary = cnn_flax.summary(cnn_flax.create_model(name), size)
    return summary.multiply_adds, top1
