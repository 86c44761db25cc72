"""Sections on the ideas that counting can show."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

import cnn_flax
from benchmarks.pages.markdown import millions, table
from cnn_flax.analysis import receptive_field
from cnn_flax.analysis.receptive_field import pixels
from cnn_flax.layers import Conv, ConvBlock, max_pool
from cnn_flax.models.efficientnet import EfficientNet
from cnn_flax.models.googlenet import Inception

__all__ = [
    "inception",
    "scaling",
    "small_kernels",
    "squeeze_and_excitation",
    "whole_nets",
]


class Stack(nn.Module):
    """Convolutions that preserve the map's size and number of channels.

    Attributes:
      kernels: sizes in pixels.
    """

    kernels: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C] -> [N, H, W, C]`."""
        for size in self.kernels:
            x = Conv(x.shape[-1], (size, size), use_bias=False)(x)
        return x


def small_kernels() -> str:
    """Returns the section on VGG."""
    rows = []
    for kernels in ((3, 3), (5,), (3, 3, 3), (7,)):
        summary = cnn_flax.summary(Stack(kernels), 56, channels=64)
        field = receptive_field(Stack(kernels), 56, "output", channels=64)
        rows.append(
            [
                " + ".join(f"{n}x{n}" for n in kernels),
                pixels(field.size),
                f"{summary.parameters:,}",
                millions(summary.multiply_adds),
            ]
        )
    header = ("kernels", "receptive field", "parameters", "multiply-adds")
    return f"""## Stacks of small kernels (VGG, 2014)

{table(header, rows)}

64 channels in and out, a map of 56 px, no biases. Two 3x3 kernels have the receptive
field of one 5x5 with 18/25 of its parameters; three have that of one 7x7 with 27/49. A
ReLU follows each."""


class NaiveInception(nn.Module):
    """Inception module without the 1x1 reductions before its 3x3 and 5x5.

    Attributes:
      features: as in `cnn_flax.models.googlenet.Inception`; those of the reductions
        are ignored.
    """

    features: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C] -> [N, H, W, sum of the four branches' features]`."""
        point, _, medium, _, large, pool = self.features
        branches = [Conv(point, (1, 1), name="branch1")(x)]
        branches.append(Conv(medium, (3, 3), name="branch2")(x))
        branches.append(Conv(large, (5, 5), name="branch3")(x))
        x = max_pool(x, 3, 1, padding=1)
        branches.append(Conv(pool, (1, 1), name="branch4")(x))
        return jnp.concatenate(branches, axis=-1)


# A module's input size and channels, and its row of the paper's table 1.
_INCEPTIONS = {
    "3a": (28, 192, (64, 96, 128, 16, 32, 32)),
    "4e": (14, 528, (256, 160, 320, 32, 128, 128)),
    "5b": (7, 832, (384, 192, 384, 48, 128, 128)),
}


def inception() -> str:
    """Returns the section on GoogLeNet."""
    rows = []
    for name, (size, channels, features) in _INCEPTIONS.items():
        reduced = Inception(features, conv_block=partial(ConvBlock, norm=None))
        for text, module in (
            ("with", reduced),
            ("without", NaiveInception(features)),
        ):
            summary = cnn_flax.summary(module, size, channels=channels)
            field = receptive_field(module, size, "output", channels=channels)
            rows.append(
                [
                    name,
                    text,
                    f"{size} x {size} x {sum(features[i] for i in (0, 2, 4, 5))}",
                    pixels(field.size),
                    f"{summary.parameters:,}",
                    millions(summary.multiply_adds),
                ]
            )
    header = (
        *("module", "1x1 reductions", "output", "receptive field"),
        *("parameters", "multiply-adds"),
    )
    return f"""## Reduce channels first (GoogLeNet, 2014)

{table(header, rows)}

The same four branches, with and without the 1x1 convolutions before the 3x3 and the
5x5, on the feature maps of the paper's net. This is the paper's figure 2, b and a,
except that both variants keep the 1x1 after the pooling, so that their outputs have the
same shape."""


_WHOLE_NETS = ("resnet34", "resnet50", "densenet121", "densenet201")


def whole_nets() -> str:
    """Returns the table of whole nets for the section on DenseNet."""
    rows = []
    for name in _WHOLE_NETS:
        info = cnn_flax.model_info(name)
        summary = cnn_flax.summary(cnn_flax.create_model(name))
        rows.append(
            [
                f"`{name}`",
                info.depth,
                millions(summary.parameters),
                millions(summary.multiply_adds),
                f"{info.weights[0].imagenet_top1:.1f} %",
            ]
        )
    header = ("model", "depth", "parameters", "multiply-adds", "accuracy")
    return table(header, rows)


# Top-1 errors in percent from the paper's table 2: without and with SE.
_SENET_ERRORS = {
    "resnet50": (24.80, 23.29),
    "resnet101": (23.17, 22.38),
    "resnext50_32x4d": (22.11, 21.10),
}


def squeeze_and_excitation() -> str:
    """Returns the section on SENet."""
    rows = []
    for name, errors in _SENET_ERRORS.items():
        before, after = (
            cnn_flax.summary(cnn_flax.create_model(n)) for n in (name, f"se{name}")
        )
        plain, squeezed = (f"{100 - error:.1f} %" for error in errors)
        rows.append(
            [
                f"`{name}`",
                millions(before.parameters),
                _increase(before.parameters, after.parameters),
                millions(before.multiply_adds),
                _increase(before.multiply_adds, after.multiply_adds),
                plain,
                squeezed,
            ]
        )
    header = (
        *("model", "parameters", "with SE", "multiply-adds", "with SE"),
        *("accuracy", "with SE"),
    )
    return f"""## Weight the channels (SENet, 2017)

{table(header, rows)}

Squeeze and excitation adds two small dense layers per block, on the means over the map:
a tenth more parameters, most of them in the last stage, and almost no multiply-adds.
Accuracies are from the paper's table 2."""


def _increase(before: int, after: int) -> str:
    return f"+{100 * (after / before - 1):.2f} %"


# Depth, width, resolution, and top-1 accuracy in percent from the paper's table 7.
_SCALINGS = {
    "B0": (1.0, 1.0, 224, 77.3),
    "depth alone": (4.0, 1.0, 224, 79.0),
    "width alone": (1.0, 2.0, 224, 78.9),
    "resolution alone": (1.0, 1.0, 448, 79.1),
    "all three": (1.4, 1.2, 291, 81.1),
}


def scaling() -> str:
    """Returns the section on EfficientNet."""
    rows = []
    for name, (depth, width, size, accuracy) in _SCALINGS.items():
        summary = cnn_flax.summary(EfficientNet(depth, width), size)
        rows.append(
            [
                name,
                f"{depth:g}",
                f"{width:g}",
                size,
                millions(summary.parameters),
                millions(summary.multiply_adds),
                f"{accuracy} %",
            ]
        )
    header = (
        *("B0, scaled in", "depth", "width", "px"),
        *("parameters", "multiply-adds", "accuracy"),
    )
    return f"""## Scale all dimensions together (EfficientNet, 2019)

{table(header, rows)}

Four ways to spend about four times the multiply-adds of B0. Parameters and
multiply-adds are counted on our nets; accuracies are from the paper's table 7."""
