"""Accuracy of each `--consistency` with four labels per digit, and its thresholds."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.measurements import Row
from benchmarks.pages.markdown import mean_and_range, percent_range, source, table
from benchmarks.pages.results.runs import train_and_test
from cnn_flax.style import SERIES, finish, new_figure
from train.config import (
    Augment,
    Config,
    Input,
    Network,
    Optimization,
    Selection,
    Unlabelled,
)
from train.run.metrics import read_metrics

__all__ = ["ARMS", "CONFIG", "SEEDS", "measure", "picture", "section"]

SEEDS = (0, 1, 2, 3, 4)

_EPOCHS, _EPOCH_STEPS = 12, 50

CONFIG = Config(
    input=Input("digits", image_size=8, batch_size=20, mean=(0.305,), std=(0.376,)),
    selection=Selection(labels_per_class=4),
    network=Network(
        "resnet18", {"stage_sizes": (1, 1), "width": 8, "small_inputs": True}
    ),
    augment=Augment(crop_padding=1),
    optimization=Optimization(learning_rate=0.1, warmup_epochs=2.4, weight_decay=5e-4),
    epochs=_EPOCHS,
    epoch_steps=_EPOCH_STEPS,
    log_every=_EPOCH_STEPS,
)

_SUPERVISED = "supervised"
_STRONG = "supervised, strongly augmented"


def _with(consistency: str, **options: float) -> Config:
    unlabelled = Unlabelled("rest", ratio=3, strong_erase=0.0)
    unlabelled = dataclasses.replace(unlabelled, consistency=consistency, **options)
    return dataclasses.replace(CONFIG, unlabelled=unlabelled)


# The papers' values, except for the momentum: theirs, 0.999, would hardly move an
# average in this few steps.
ARMS = {
    _SUPERVISED: CONFIG,
    _STRONG: dataclasses.replace(
        CONFIG,
        augment=Augment(crop_padding=1, policy="rand_augment", magnitude=10),
    ),
    "FixMatch": _with("fixmatch"),
    "FlexMatch": _with("flexmatch"),
    "SoftMatch": _with("softmatch", softmatch_momentum=0.99),
    "FreeMatch": _with("freematch", freematch_momentum=0.99),
    "AdaMatch": _with("adamatch", threshold=0.9, adamatch_momentum=0.99),
    "MixMatch": _with("mixmatch", unlabelled_weight=75.0, ramp_up_epochs=_EPOCHS / 2),
}

_COMMAND = "python -m benchmarks.pages.results --measure consistency"

# Metrics over the epochs, by their name in a row.
_CURVES = {
    "threshold": "unlabelled_threshold",
    "lowest": "unlabelled_threshold_lowest",
    "highest": "unlabelled_threshold_highest",
    "used": "unlabelled_used",
    "used_right": "unlabelled_used_right",
}


def measure(runs: Path) -> Iterator[Row]:
    """Trains each arm from each seed and yields one row per run.

    Args:
      runs: folder of the runs; a run that has finished there is not repeated.
    """
    for name, config in ARMS.items():
        for seed in SEEDS:
            run = runs / f"{name.replace(', ', '_').replace(' ', '_')}_seed{seed}"
            row = train_and_test(dataclasses.replace(config, seed=seed), run)
            del row["seconds"]
            lines = [line for line in read_metrics(run) if line["split"] == "train"]
            curves = {
                curve: [round(line[metric], 4) for line in lines]
                for curve, metric in _CURVES.items()
                if metric in lines[0]
            }
            yield {"arm": name, "seed": seed, **row, **curves}


def section(rows: Sequence[Row]) -> str:
    """Returns the page's section."""
    lines = [
        [name, percent_range(_accuracies(rows, name)), *_gains(rows, name)]
        for name in ARMS
    ]
    first = rows[0]
    return f"""## Consistency

{table(("method", "test accuracy", "over supervised", "over FixMatch"), lines)}

Accuracy on 359 test digits of scikit-learn: mean (lowest to highest) over {len(SEEDS)}
seeds, which decide the {4 * 10} labelled images, the initial weights and the
augmentation; the other 1,398 training images have no labels. One digit is 0.3 points.
Gains are seed by seed, in percentage points. In every row, a ResNet of two blocks
({first["parameters"]:,} parameters) trains for {first["steps"]:,} steps of 20 labelled
images, and of 60 unlabelled ones where the method uses them.
{source("consistency.jsonl", _COMMAND, rows)}

From every seed, FixMatch beats training on the labels alone, and its four variants beat
FixMatch: they learn from more images, and earlier. MixMatch has the best run and the
worst one, which ends below supervised training: it has no threshold, and learns wrong
guesses as well. AdaMatch shows the labelled images strongly augmented too, which alone
gains what the second row has.

Thresholds, weights and temperatures are the papers'; the momenta are 0.99, as 0.999
hardly moves an average in this few steps. Nothing was tuned on these seeds.

![Thresholds, and the share of the images that is used](pictures/thresholds.png)

Left, the confidence from which an image counts in full, in FlexMatch and FreeMatch as
the mean over the classes with a band from the lowest to the highest; FixMatch's is
fixed. Right, the share of the unlabelled images that is used (solid), and that is used
with the true class (dashed): what is between the two lines is learned wrongly. Means
over the seeds. The `report.html` of a run has its own."""


def picture(rows: Sequence[Row]) -> Figure:
    """Plots thresholds and use of the unlabelled images over the steps."""
    figure = new_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    steps = _EPOCH_STEPS * np.arange(1, _EPOCHS + 1)
    arms = [name for name in ARMS if any("used" in row for row in _of(rows, name))]
    for name, color in zip(arms, SERIES, strict=False):
        runs = _of(rows, name)
        used, right_ones = (_mean(runs, curve) for curve in ("used", "used_right"))
        right.plot(steps, used, color=color, label=name)
        right.plot(steps, right_ones, color=color, linestyle="--")
        if "threshold" not in runs[0]:
            fixed = 100 * ARMS[name].unlabelled.threshold
            left.axhline(fixed, color=color, label=name)
            continue
        left.plot(steps, _mean(runs, "threshold"), color=color, label=name)
        if "lowest" in runs[0]:
            band = _mean(runs, "lowest"), _mean(runs, "highest")
            left.fill_between(steps, *band, color=color, alpha=0.15, linewidth=0)
    left.set_ylabel("threshold (%)")
    right.set_ylabel("unlabelled images (%)")
    for ax in (left, right):
        ax.set(xlabel="step", xlim=(0, steps[-1]), ylim=(0, 102))
        finish(ax)
    left.legend(frameon=False, loc="lower right")
    return figure


def _accuracies(rows: Sequence[Row], arm: str) -> list[float]:
    return [row["accuracy"] for row in _of(rows, arm)]


def _gains(rows: Sequence[Row], arm: str) -> Iterator[str]:
    """Formats the gains over supervised training and over FixMatch."""
    for other in (_SUPERVISED, "FixMatch"):
        points = 100 * np.subtract(_accuracies(rows, arm), _accuracies(rows, other))
        is_first = list(ARMS).index(arm) <= list(ARMS).index(other)
        yield "" if is_first else mean_and_range(list(points), "+.1f")


def _of(rows: Sequence[Row], arm: str) -> list[Row]:
    return [row for row in rows if row["arm"] == arm]


def _mean(rows: Sequence[Row], curve: str) -> np.ndarray:
    return 100 * np.mean([row[curve] for row in rows], axis=0)
