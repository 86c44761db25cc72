"""What the most probable classes of a pseudo-label lose against all of them."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.image_tar import write_image_tar
from benchmarks.measurements import Row
from benchmarks.pages.markdown import mean_and_range, percent_range, source, table
from benchmarks.pages.results.runs import silent, train, train_and_test
from train.config import (
    Augment,
    Config,
    Input,
    Network,
    Optimization,
    Selection,
    Unlabelled,
)
from train.data import Source
from train.data.label_shards import dense_probabilities, label_path, read_label_shard
from train.data.shards import Shards, list_shards
from train.recipes import fashion_mnist_few_labels
from train.run.labelling import label_images, open_images_to_label
from train.run.shard_labelling import ShardLabeller, label_shards

__all__ = ["ARMS", "CONFIGS", "SEEDS", "measure", "section"]

SEEDS = (0, 1, 2)
_DIGITS = Config(
    input=Input(
        data="digits", image_size=8, batch_size=50, mean=(0.305,), std=(0.376,)
    ),
    selection=Selection(labels_per_class=5),
    network=Network(
        "resnet18", {"stage_sizes": (1, 1), "width": 8, "small_inputs": True}
    ),
    augment=Augment(crop_padding=1),
    optimization=Optimization(learning_rate=0.1, warmup_epochs=1, weight_decay=5e-4),
    unlabelled=Unlabelled("rest", ratio=2, pseudo_labels="of the teacher"),
    epochs=6,
    epoch_steps=50,
    log_every=50,
)
CONFIGS = {
    "digits": _DIGITS,
    # 60,000 images; a teacher of 250 labels.
    "Fashion-MNIST": dataclasses.replace(
        fashion_mnist_few_labels.config, unlabelled=_DIGITS.unlabelled
    ),
}
DENSE = "all, in one file"
# Arm -> classes kept of each image; 0 for the file of all probabilities.
ARMS = {DENSE: 0, "all 10, in shards": 10, "3, in shards": 3, "1, in shards": 1}

_COMMAND = "python -m benchmarks.pages.results --measure top_classes"
_PER_SHARD = 500
_HEADER = ("images", "classes kept", "accuracy", "against one file", "divergence")


def measure(runs: Path) -> Iterator[Row]:
    """Trains a teacher from each seed, and a student with each kind of its labels.

    Args:
      runs: folder of the runs; a run that has finished there is not repeated.
    """
    for data, config in CONFIGS.items():
        for row in _measure(config, runs / data):
            yield {"data": data, **row}


def _measure(base: Config, runs: Path) -> Iterator[Row]:
    for seed in SEEDS:
        teacher = runs / f"teacher_seed{seed}"
        supervised = dataclasses.replace(base, unlabelled=Unlabelled(), seed=seed)
        train(supervised, teacher)
        images, opened = open_images_to_label(teacher, "rest")
        file = runs / f"rest_seed{seed}.npy"
        dense = label_images(teacher, images, file, opened=opened, say=_silent)
        shards = _write_shards(images, runs / f"rest_seed{seed}")
        for arm, top in ARMS.items():
            spec, labels, error = "rest", file, 0.0
            if top:
                labels = runs / f"top{top}_seed{seed}"
                label_shards(
                    ShardLabeller(teacher, labels, top=top, say=_silent),
                    shards,
                    _silent,
                )
                spec = shards.spec
                error = _divergence(dense.probabilities, labels, shards)
            config = _student(base, seed, spec, labels)
            row = train_and_test(config, runs / f"student_{top}_seed{seed}")
            yield {"arm": arm, "top": top, "seed": seed, "divergence": error, **row}


def _student(base: Config, seed: int, spec: str, labels: Path) -> Config:
    options = dataclasses.replace(
        base.unlabelled, unlabelled=spec, pseudo_labels=str(labels)
    )
    return dataclasses.replace(base, unlabelled=options, seed=seed)


def _silent(text: str) -> None:
    silent().print(text)


def _write_shards(images: Source, root: Path) -> Shards:
    root.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(images), _PER_SHARD):
        rows = range(start, min(start + _PER_SHARD, len(images)))
        tar = root / f"{start:05}.tar"
        write_image_tar(tar, (images.read(i).squeeze() for i in rows))
    return list_shards(f"shards:{root}/*.tar")


def _divergence(dense: np.ndarray, folder: Path, shards: Shards) -> float:
    """Mean Kullback-Leibler divergence from all probabilities to the kept ones."""
    parts = [read_label_shard(label_path(folder, name)) for name in shards.names]
    kept = np.concatenate(
        [dense_probabilities(p.classes, p.log_probs, dense.shape[1]) for p in parts]
    ).astype(np.float64)
    exact = np.asarray(dense, np.float64)
    logs = np.log(np.maximum(exact, 1e-12)) - np.log(np.maximum(kept, 1e-12))
    return float(np.sum(exact * logs, axis=1).mean())


def section(rows: Sequence[Row]) -> str:
    """Returns the page's section."""
    lines = [line for data in CONFIGS for line in _lines(data, rows)]
    steps = {row["data"]: row["steps"] for row in rows}
    return f"""## Labels of the most probable classes

{table(_HEADER, lines)}

Accuracy on the test images: mean (lowest to highest) of {len(SEEDS)} seeds, of a
student that learns from few labels and from a teacher's labels for all other training
images. Digits: 50 labels and 1,388 of the teacher's, {steps["digits"]:,} steps of a
small ResNet, 359 test images. Fashion-MNIST: 250 labels and 59,750 of the teacher's,
{steps["Fashion-MNIST"]:,} steps, 10,000 test images. With 10 classes, 3 stand in for
the 8 of 1,000 that [label shards](scale.md) keep. The divergence, in nats, is from all
probabilities to those that are kept, with the rest spread evenly. One of the test
digits is 0.3 points; shards are read in another order than the one file, which alone
changes the result.
{source("top_classes.jsonl", _COMMAND, rows)}"""


def _lines(data: str, rows: Sequence[Row]) -> Iterator[list[str]]:
    rows = [row for row in rows if row["data"] == data]
    before = {row["seed"]: row["accuracy"] for row in rows if row["arm"] == DENSE}
    for arm in ARMS:
        found = [row for row in rows if row["arm"] == arm]
        accuracy = percent_range([row["accuracy"] for row in found])
        points = [100 * (row["accuracy"] - before[row["seed"]]) for row in found]
        gain = "" if arm == DENSE else mean_and_range(points, "+.1f")
        error = sum(row["divergence"] for row in found) / len(found)
        yield [data, arm, accuracy, gain, f"{error:z.4f}" if error else ""]
