"""Accuracy of each method with 40, 250 and 1,000 labels of Fashion-MNIST."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measurements import Row
from benchmarks.pages.markdown import mean_and_range, percent_range, source, table
from benchmarks.pages.results.runs import silent, train_and_test
from train import recipes
from train.config import Config, Distillation, Selection, Unlabelled
from train.noisy_student.plan import NoisyStudent, TrainStage, plan
from train.noisy_student.run import run as run_noisy_student
from train.recipes.noisy_student_fashion_mnist import noisy_student
from train.run.labelling import label_images, open_images_to_label

__all__ = ["ARMS", "LABELS", "SEEDS", "measure", "section"]

LABELS = (250, 40, 1000)
SEEDS = (0, 1, 2)

_SUPERVISED, _NOISE_ALONE = "supervised", "noise alone"
_FIXMATCH = recipes.load("fashion_mnist_fixmatch").config.unlabelled
_UNLABELLED = Unlabelled("rest", ratio=_FIXMATCH.ratio)

_COMMAND = "python -m benchmarks.pages.results --measure few_labels"

# Takes a config and the folder of its run; trains, and returns the row's figures.
Arm = Callable[[Config, Path], Row]


def measure(runs: Path) -> Iterator[Row]:
    """Trains each arm with each number of labels from each seed; one row per run.

    Args:
      runs: folder of the runs; a run that has finished there is not repeated.
    """
    for labels in LABELS:
        for seed in SEEDS:
            # Validated on 600 other training images; the test images are used once.
            select = Selection("val", val_share=0.01, labels_per_class=labels // 10)
            config = recipes.load("fashion_mnist_few_labels").config
            config = dataclasses.replace(config, selection=select, seed=seed)
            for name, arm in ARMS.items():
                folder = runs / f"{name.replace(' ', '_')}_{labels}_seed{seed}"
                row = arm(config, folder)
                yield {"arm": name, "labels": labels, "seed": seed, **row}


def section(rows: Sequence[Row]) -> str:
    """Returns the page's section, for the numbers of labels in the rows."""
    counts = sorted({row["labels"] for row in rows})
    supervised = _of_arm(rows, _SUPERVISED)
    lines, gains = [], []
    for name in ARMS:
        found = _of_arm(rows, name)
        minutes = sum(row["seconds"] for row in found) / len(found) / 60
        by_count = [[row for row in found if row["labels"] == n] for n in counts]
        cells = [percent_range([row["accuracy"] for row in some]) for some in by_count]
        lines.append([name, *cells, f"{minutes:.1f}"])
        if name != _SUPERVISED:
            gains.append([name, *(_gains(some, supervised) for some in by_count)])
    labels = [f"{count:,} labels" for count in counts]
    last = _of_arm(rows, _NOISE_ALONE)[0]
    return f"""## Few labels

{table(("method", *labels, "minutes per run"), lines)}

Accuracy on Fashion-MNIST's 10,000 test images: mean (lowest to highest) over
{len(SEEDS)} seeds, which decide the labelled images, the initial weights and the
augmentation. The minutes are those of training, teachers included, on a loaded machine.
{source("few_labels.jsonl", _COMMAND, rows)}

Every class has the same number of labels; the other training images, close to 60,000,
are used without theirs. A ResNet of three blocks
({supervised[0]["parameters"]:,} parameters) trains for {supervised[0]["steps"]:,} steps
of 32 labelled images, mirrored and shifted by up to two pixels, and of 96 unlabelled
images where the method uses them.

Gains over supervised training with the same labelled images, in percentage points:

{table(("method", *labels), gains)}

The fewer the labels, the more the unlabelled images help.

- **Supervised**: the labels alone, `python -m train fashion_mnist_few_labels`.
- **Pseudo-label**: the supervised run labels the images for which its confidence is
  above 0.3; the same net learns from these and from the true labels.
- **FixMatch**: `python -m train fashion_mnist_fixmatch`.
- **Distilled**: the FixMatch net is the teacher. A new net learns from the labels and
  from the teacher's predictions for all images, softened by a temperature of 2.
- **Noisy Student**: `python -m train noisy-student noisy_student_fashion_mnist`, three
  rounds of growing nets with noise, which no method above uses. The first round has the
  labels alone:

{table(("round", *labels), _rounds(rows, counts))}

- **Noise alone**: the Noisy Student's last net ({last["parameters"]:,} parameters) with
  its noise, without a teacher and the images that it labelled. What the Noisy Student
  gains over this, in points, is due to its teachers:
  {_gains_of_teachers(rows, counts)}.

Each command also takes `--val-share 0.01 --eval-split val --labels-per-class 25 --seed
0`, here for 250 labels and the first seed. `python -m train evaluate RUN --split test`
evaluates the run. The commands for pseudo-labels and for the distilled net:

```bash
python -m train pseudo-label runs/supervised --data rest --out runs/rest.npy
python -m train fashion_mnist_few_labels --unlabelled rest --ratio 3 \\
  --pseudo-labels runs/rest.npy --min-confidence 0.3
python -m train fashion_mnist_few_labels --unlabelled rest --ratio 3 \\
  --teacher runs/fixmatch --temperature 2 --alpha 0.5
```"""


def _of_arm(rows: Sequence[Row], arm: str) -> list[Row]:
    return [row for row in rows if row["arm"] == arm]


def _gains(found: Sequence[Row], alone: Sequence[Row]) -> str:
    """Formats mean and range of the gain in percentage points, seed by seed."""
    before = {(row["labels"], row["seed"]): row["accuracy"] for row in alone}
    points = [
        100 * (row["accuracy"] - before[row["labels"], row["seed"]]) for row in found
    ]
    return mean_and_range(points, "+.1f")


def _rounds(rows: Sequence[Row], counts: Sequence[int]) -> list[list[Any]]:
    """One line per round of the Noisy Student: accuracy by number of labels."""
    found = _of_arm(rows, "Noisy Student")
    shares = [[row["rounds"] for row in found if row["labels"] == n] for n in counts]
    return [
        [
            number + 1,
            *(percent_range([rounds[number] for rounds in some]) for some in shares),
        ]
        for number in range(len(found[0]["rounds"]))
    ]


def _gains_of_teachers(rows: Sequence[Row], counts: Sequence[int]) -> str:
    """Formats the gain of the Noisy Student over its noise alone, in points."""
    alone = _of_arm(rows, _NOISE_ALONE)
    found = _of_arm(rows, "Noisy Student")
    gains = [
        _gains([row for row in found if row["labels"] == n], alone) for n in counts
    ]
    parts = [f"{gain} with {n:,} labels" for gain, n in zip(gains, counts, strict=True)]
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _supervised(config: Config, folder: Path) -> Row:
    return train_and_test(config, folder)


def _distilled(config: Config, folder: Path) -> Row:
    teacher_folder = folder.with_name(folder.name.replace("distilled", "FixMatch"))
    teacher = _fixmatch(config, teacher_folder)
    student = dataclasses.replace(
        config,
        distillation=Distillation(str(teacher_folder), temperature=2.0, alpha=0.5),
        unlabelled=_UNLABELLED,
    )
    row = train_and_test(student, folder)
    return _extended(row, teacher=teacher["accuracy"], seconds=teacher["seconds"])


def _pseudo_labelled(config: Config, folder: Path) -> Row:
    teacher = folder.with_name(folder.name.replace("pseudo-label", "supervised"))
    seconds = train_and_test(config, teacher)["seconds"]
    file = folder.with_name(f"{folder.name}.npy")
    images, opened = open_images_to_label(teacher, "rest")
    label_images(teacher, images, file, opened=opened, say=lambda line: None)
    others = dataclasses.replace(
        _UNLABELLED, pseudo_labels=str(file), min_confidence=0.3
    )
    row = train_and_test(dataclasses.replace(config, unlabelled=others), folder)
    return _extended(row, seconds=seconds)


def _fixmatch(config: Config, folder: Path) -> Row:
    return train_and_test(dataclasses.replace(config, unlabelled=_FIXMATCH), folder)


def _noise_alone(config: Config, folder: Path) -> Row:
    last = _stages(config, folder)[1][-1].config
    return train_and_test(dataclasses.replace(last, unlabelled=Unlabelled()), folder)


def _noisy_student(config: Config, folder: Path) -> Row:
    student, stages = _stages(config, folder)
    run_noisy_student(student, folder, console=silent())
    found = [train_and_test(stage.config, folder / stage.name) for stage in stages]
    before = sum(row["seconds"] for row in found[:-1])
    rounds = [row["accuracy"] for row in found]
    return _extended(found[-1], rounds=rounds, seconds=before)


def _stages(config: Config, folder: Path) -> tuple[NoisyStudent, list[TrainStage]]:
    """The Noisy Student and its training stages."""
    noisy = dataclasses.replace(
        noisy_student.config, selection=config.selection, seed=config.seed
    )
    student = dataclasses.replace(noisy_student, config=noisy)
    return student, [s for s in plan(student, folder) if isinstance(s, TrainStage)]


def _extended(row: Row, seconds: float, **more: Any) -> Row:
    """Adds figures to a row, and the seconds of the runs that it builds on."""
    return {**row, "seconds": row["seconds"] + seconds, **more}


ARMS: dict[str, Arm] = {
    _SUPERVISED: _supervised,
    "pseudo-label": _pseudo_labelled,
    "FixMatch": _fixmatch,
    "distilled": _distilled,
    _NOISE_ALONE: _noise_alone,
    "Noisy Student": _noisy_student,
}
