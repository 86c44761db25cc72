"""What was trained for the page: tables of `docs/results/architectures.jsonl`."""

from collections.abc import Sequence

import cnn_flax
from docs.architectures.experiments import SEEDS
from docs.architectures.results import Row
from docs.machine import where
from docs.tables import millions, spread, table

__all__ = ["deform", "dense", "depth", "groups", "norm", "setting"]


def groups(rows: Sequence[Row], *keys: str) -> dict[tuple, list[Row]]:
    """Rows of the same net and setting, one a seed, in their order."""
    found: dict[tuple, list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def setting(rows: Sequence[Row]) -> str:
    """On what the trained nets of the page were trained."""
    return f"""Small nets were trained where counting does not tell. They learn
scikit-learn's 1,438 handwritten digits of 8 x 8 px and are judged on 359 others, so
that one right answer is 0.28 %. Each figure is the mean over {len(SEEDS)} seeds, with
the lowest and the highest. All use SGD with Nesterov's momentum, a rate that rises for
an epoch and falls as a cosine, batches of 64 and no augmentation. The raw results are
in [results/architectures.jsonl](results/architectures.jsonl), and
`python -m docs.architectures --measure` makes them again. These are of
{where(rows)}.
What holds for nets of this size need not hold for large ones."""


def _accuracy(rows: Sequence[Row], test: str = "test") -> str:
    return spread([100 * row["accuracy"][test] for row in rows], ".1f") + " %"


def _loss(rows: Sequence[Row]) -> str:
    return spread([row["loss"][-1] for row in rows], ".2g")


def depth(rows: Sequence[Row]) -> str:
    """The section on ResNet."""
    lines = [
        [layers, net, f"{some[0]['parameters']:,}", _loss(some), _accuracy(some)]
        for (layers, net), some in groups(rows, "depth", "net").items()
    ]
    header = ("depth", "net", "parameters", "training loss", "accuracy")
    return f"""## A way around each block (ResNet, 2015)

![Training loss over the epochs](pictures/plain_and_residual.png)

{table(header, lines)}

The nets of the paper's section 4.2, half as wide, with BatchNorm in both; the residual
ones have shortcuts without parameters, so that nothing else differs. The training loss
is the mean over the last of 15 epochs, in nats: where the deep plain net is worse, it
is not that it learns too much by heart, it cannot be trained so well."""


def dense(rows: Sequence[Row], published: str) -> str:
    """The section on DenseNet; `published` is the table of whole nets."""
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
    return f"""## Keep what was found (DenseNet, 2016)

{published}

A residual block adds its result to what it was given; a dense layer puts its 32
channels beside it, and every later layer of the block reads them as they are. So few
new channels suffice, and few parameters; but each layer reads all that came before,
which costs multiply-adds and memory. Accuracies are those of torchvision's weights.

{table(header, lines)}

Small nets of 14 (added) and 16 layers, 15 epochs, on the digits."""


def norm(rows: Sequence[Row]) -> str:
    """The section on normalisation."""
    rates = sorted({row["learning_rate"] for row in rows})
    found = groups(rows, "net", "learning_rate")
    nets = dict.fromkeys(net for net, _ in found)
    lines = [[net, *(_accuracy(found[net, rate]) for rate in rates)] for net in nets]
    plain, normalised = (
        f"{cnn_flax.model_info(name).weights[0].imagenet_top1:.1f} %"
        for name in ("vgg16", "vgg16_bn")
    )
    header = ("normalisation", *(f"learning rate {rate:g}" for rate in rates))
    return f"""## Normalise (AlexNet, 2012, and BatchNorm, 2015)

{table(header, lines)}

Accuracy of one net of four 3x3 convolutions and a dense layer, after 10 epochs. Local
response normalisation divides by what neighbouring channels hold; it has no parameters
and knows nothing of the batch. With the paper's constants it also makes everything
smaller, by 2 ** -0.75 at each layer, which slows a net down that was drawn for none.
The AlexNet paper (section 3.3) gained 1.4 percentage points with it, the VGG paper
(table 3, A and A-LRN) nothing. BatchNorm lets the rate be chosen over a wider range. Of
torchvision's weights, `vgg16` has {plain} and `vgg16_bn`, the same net with BatchNorm,
{normalised}."""


def deform(rows: Sequence[Row]) -> str:
    """The section on DCN."""
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
    return f"""## Let the taps wander (DCN, 2017 and 2019)

{table(header, lines)}

Digits at 16 px, turned by up to 30 degrees and scaled by 0.7 to 1, four draws of each
to learn from, 8 epochs. The nets have three residual blocks; in the last two, the
second 3x3 is plain, deformable, or deformable with masks. The last two columns are
shapes that no net has learned from. The branches that give the offsets are parameters
and work that the plain net does not have."""
