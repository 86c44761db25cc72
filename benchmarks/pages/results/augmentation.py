"""What augmentation gains on 1,000 labels of Fashion-MNIST, and where it hurts."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measurements import Row
from benchmarks.pages.markdown import percent_range, source, table
from benchmarks.pages.results.runs import train_and_test
from train.config import Augment, Config, Input, Network, Optimization, Selection

__all__ = ["ARMS", "CONFIG", "SEEDS", "measure", "section"]

SEEDS = (0, 1, 2)

CONFIG = Config(
    input=Input(
        data="idx:/usr/share/datasets/fashion-mnist",
        image_size=28,
        batch_size=100,
        mean=(0.286,),
        std=(0.353,),
    ),
    # Validated on 600 other training images; the test images are used once.
    selection=Selection(eval_split="val", val_share=0.01, labels_per_class=100),
    network=Network(
        "resnet18", {"stage_sizes": (1, 1, 1, 1), "width": 8, "small_inputs": True}
    ),
    optimization=Optimization(learning_rate=0.1, warmup_epochs=5, weight_decay=5e-4),
    epochs=100,
    log_every=100,
)

_FLIPS_AND_CROPS = Augment(flip=0.5, crop_padding=2)
_CHOSEN = dataclasses.replace(
    _FLIPS_AND_CROPS, policy="rand_augment", operations=1, magnitude=4, erase=0.5
)

_COMMAND = "python -m benchmarks.pages.results --measure augmentation"

ARMS = {
    "nothing": Augment(),
    "flips and crops": _FLIPS_AND_CROPS,
    "flips, crops, vertical flips": dataclasses.replace(
        _FLIPS_AND_CROPS, vertical_flip=0.5
    ),
    "chosen: flips, crops, RandAugment(1, 4), erasing": _CHOSEN,
    "everything: also vertical flips, RandAugment(2, 9), Mixup, CutMix": (
        dataclasses.replace(
            _CHOSEN,
            vertical_flip=0.5,
            operations=2,
            magnitude=9,
            mixup=0.2,
            cutmix=1.0,
        )
    ),
}


def measure(runs: Path) -> Iterator[Row]:
    """Trains each arm from each seed and yields one row per run.

    Args:
      runs: folder of the runs; a run that has finished there is not repeated.
    """
    for i, (name, augment) in enumerate(ARMS.items()):
        for seed in SEEDS:
            config = dataclasses.replace(CONFIG, augment=augment, seed=seed)
            run = runs / f"{i}_seed{seed}"
            row = train_and_test(config, run)
            del row["seconds"]
            yield {"arm": name, "seed": seed, **row}


def section(rows: Sequence[Row]) -> str:
    """Returns the page's section."""
    accuracies = {
        name: [row["accuracy"] for row in rows if row["arm"] == name] for name in ARMS
    }
    lines = [[name, percent_range(values)] for name, values in accuracies.items()]
    first = rows[0]
    return f"""## Augmentation

{table(("augmentation", "test accuracy"), lines)}

Accuracy on Fashion-MNIST's 10,000 test images after training with 1,000 labels: mean
(lowest to highest) over {len(SEEDS)} seeds, which decide the labelled images, the
initial weights and the augmentation. In every row, a ResNet of four blocks
({first["parameters"]:,} parameters) trains for {first["steps"]:,} steps of 100 images;
`benchmarks/pages/results/augmentation.py` has the other settings.
{source("augmentation.jsonl", _COMMAND, rows)}

Flips and small shifts do not change what a garment is, and gain most. The policy was
chosen among six on one other seed and other training images, where they lay within
0.8 % of each other; its gain over flips and crops is small. Garments are never
photographed upside down: vertical flips lose part of what flips and crops gain. So does
everything at once, which a small net cannot learn in so few steps. More augmentation is
not better; augmentation that suits the data is."""
