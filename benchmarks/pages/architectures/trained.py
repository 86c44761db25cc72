"""Sections with trained nets, from `docs/measurements/architectures.jsonl`."""

from collections.abc import Sequence

import cnn_flax
from benchmarks.measurements import Row
from benchmarks.pages.architectures.experiments import SEEDS
from benchmarks.pages.markdown import (
    mean_and_range,
    millions,
    percent_range,
    source,
    table,
)

__all__ = ["deform", "dense", "depth", "groups", "norm", "setting"]


_COMMAND = "python -m benchmarks.pages.architectures --measure"


def groups(rows: Sequence[Row], *keys: str) -> dict[tuple, list[Row]]:
    """Groups rows by the values of keys: one row per seed, in order."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def setting(rows: Sequence[Row]) -> str:
    """Returns the section on how the page's nets were trained."""
    return f"""## How the small nets were trained

The sections below show by counting what can be counted. For the rest, small nets were
trained on scikit-learn's 1,438 handwritten digits of 8 x 8 px and tested on 359 others,
so one image is 0.28 %. Each figure is the mean over {len(SEEDS)} seeds (lowest to
highest). All nets use SGD with Nesterov momentum, a learning rate with one epoch of
warm-up and cosine decay, batches of 64, and no augmentation. What holds for nets of
this size need not hold for large ones.
{source("architectures.jsonl", _COMMAND, rows)}"""


def _accuracy(rows: Sequence[Row], test: str = "test") -> str:
    return percent_range([row["accuracy"][test] for row in rows])


def _loss(rows: Sequence[Row]) -> str:
    return mean_and_range([row["loss"][-1] for row in rows], ".2g")


def depth(rows: Sequence[Row]) -> str:
    """Returns the section on ResNet."""
    lines = [
        [layers, net, f"{some[0]['parameters']:,}", _loss(some), _accuracy(some)]
        for (layers, net), some in groups(rows, "depth", "net").items()
    ]
    header = ("depth", "net", "parameters", "training loss", "accuracy")
    return f"""## A shortcut around each block (ResNet, 2015)

![Training loss over the epochs](pictures/plain_and_residual.png)

{table(header, lines)}

The nets of the paper's section 4.2 at half the width, all with BatchNorm. The residual
nets' shortcuts have no parameters, so nothing else differs. The training loss is the
mean over the last of 15 epochs, in nats. It shows that the deep plain net is worse not
because it overfits, but because it is harder to train."""


def dense(rows: Sequence[Row], published: str) -> str:
    """Returns the section on DenseNet; `published` is the table of whole nets."""
    lines = [
        [
            net,
            f"{some[0]['parameters']:,}",
            millions(some[0]["multiply_adds"]),
            _accuracy(some),
        ]
        for (net,), some in groups(rows, "net").items()
    ]
    header = ("features are", "parameters", "multiply-adds", "accuracy")
    return f"""## Reuse all features (DenseNet, 2016)

{published}

A residual block adds its output to its input. A dense layer concatenates its 32
channels to its input, and every later layer of the block reads them unchanged. Few new
channels, and so few parameters, suffice; but each layer reads all earlier ones, which
costs multiply-adds and memory. Accuracies are those of torchvision's weights.

{table(header, lines)}

Small nets of 14 layers (added) and 16 layers (concatenated), 15 epochs."""


def norm(rows: Sequence[Row]) -> str:
    """Returns the section on normalisation."""
    rates = sorted({row["learning_rate"] for row in rows})
    runs = groups(rows, "net", "learning_rate")
    nets = dict.fromkeys(net for net, _ in runs)
    lines = [[net, *(_accuracy(runs[net, rate]) for rate in rates)] for net in nets]
    plain, normalised = (
        f"{cnn_flax.model_info(name).weights[0].imagenet_top1:.1f} %"
        for name in ("vgg16", "vgg16_bn")
    )
    header = ("normalisation", *(f"learning rate {rate:g}" for rate in rates))
    return f"""## Normalise (AlexNet, 2012, and BatchNorm, 2015)

{table(header, lines)}

Accuracy of a net of four 3x3 convolutions and a dense layer, after 10 epochs. Local
response normalisation divides by the activations of neighbouring channels; it has no
parameters and does not depend on the batch. With the paper's constants it also scales
activations by 2 ** -0.75 in each layer, which slows down a net whose initialisation
does not account for it. The AlexNet paper (section 3.3) gained 1.4 percentage points
with it, the VGG paper (table 3, A and A-LRN) nothing. BatchNorm works over a wider
range of learning rates. Of torchvision's weights, `vgg16` has {plain}, and `vgg16_bn`,
the same net with BatchNorm, {normalised}."""


def deform(rows: Sequence[Row]) -> str:
    """Returns the section on DCN."""
    tests = list(rows[0]["accuracy"])
    lines = [
        [
            net,
            f"{some[0]['parameters']:,}",
            *(_accuracy(some, test) for test in tests),
        ]
        for (net,), some in groups(rows, "net").items()
    ]
    header = ("convolutions", "parameters", *tests)
    return f"""## Move the sampling points (DCN, 2017 and 2019)

{table(header, lines)}

Digits at 16 px, rotated by up to 30 degrees and scaled by 0.7 to 1, with four samples
of each for training, 8 epochs. The nets have three residual blocks; in the last two,
the second 3x3 is plain, deformable, or deformable with masks. The last two columns are
transformations that no net was trained on. The branches that compute the offsets add
parameters and multiply-adds that the plain net does not have."""
