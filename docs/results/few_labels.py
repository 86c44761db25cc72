"""What each method makes of 40, 250 and 1,000 labels."""

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from docs.machine import where
from docs.results.rows import Row, spread
from docs.tables import table
from train import recipes
from train.config import Config, Distillation, Selection, Unlabelled
from train.inference import evaluate_run
from train.loop import fit
from train.noisy_student.plan import NoisyStudent, Train, plan
from train.noisy_student.run import run as run_noisy_student
from train.pseudo_label import label_images, open_images
from train.recipes.noisy_student_fashion_mnist import noisy_student

__all__ = ["ARMS", "LABELS", "SEEDS", "measure", "section"]

LABELS = (250, 40, 1000)
SEEDS = (0, 1, 2)

_ALONE, _NOISE_ALONE = "supervised", "noise alone"
_FIXMATCH = recipes.load("fashion_mnist_fixmatch").config.unlabelled
_OTHERS = Unlabelled("rest", ratio=_FIXMATCH.ratio)

# Of a config, and of the folder for its run; trains, and gives what the row tells.
Arm = Callable[[Config, Path], Row]


def measure(runs: Path) -> Iterator[Row]:
    """Trains each arm with each number of labels from each seed.

    Args:
      runs: where the runs are; one that has ended there is not run again.
    """
    for labels in LABELS:
        for seed in SEEDS:
            # Watched on 600 other training images; the test images are looked at once.
            select = Selection("val", val_share=0.01, labels_per_class=labels // 10)
            config = recipes.load("fashion_mnist_few_labels").config
            config = dataclasses.replace(config, selection=select, seed=seed)
            for name, arm in ARMS.items():
                folder = runs / f"{name.replace(' ', '_')}_{labels}_seed{seed}"
                row = arm(config, folder)
                yield {"arm": name, "labels": labels, "seed": seed, **row}


def section(rows: Sequence[Row]) -> str:
    """The section of the page, for the numbers of labels that were measured."""
    counts = sorted({row["labels"] for row in rows})
    alone = _found(rows, _ALONE)
    lines, gains = [], []
    for name in ARMS:
        found = _found(rows, name)
        minutes = sum(row["seconds"] for row in found) / len(found) / 60
        by_count = [[row for row in found if row["labels"] == n] for n in counts]
        cells = [spread([row["accuracy"] for row in some]) for some in by_count]
        lines.append([name, *cells, f"{minutes:.1f}"])
        if name != _ALONE:
            gains.append([name, *(_gain(some, alone) for some in by_count)])
    labels = [f"{count:,} labels" for count in counts]
    last = _found(rows, _NOISE_ALONE)[0]
    return f"""## Few labels

{table(("method", *labels, "minutes a run"), lines)}

Fashion-MNIST with so many labels, as many of each class; the other training images,
close to 60,000, are there without theirs. Mean, lowest and highest share of the 10,000
test images that are classified rightly, over {len(SEEDS)} seeds, which draw the
labelled images, the weights and the changes. A ResNet of three blocks
({alone[0]["parameters"]:,} parameters) learns for {alone[0]["steps"]:,} steps of 32
labelled images, mirrored and moved by up to two pixels, and of 96 others where the
method takes them. The minutes are of training, teachers included, on a loaded machine.

What each gains on supervised training with the same labelled images, in points:

{table(("method", *labels), gains)}

The fewer the labels, the more the other images give.

- **Supervised**: the labels alone, `python -m train fashion_mnist_few_labels`.
- **Pseudo-label**: the answers of the supervised run are the labels of all images that
  it gave more than 0.3; the same net learns from these and the true labels.
- **FixMatch**: `python -m train fashion_mnist_fixmatch`.
- **Distilled**: the net that FixMatch gave is the teacher. A new one learns from the
  labels and from the teacher's answers to all images, softened by a temperature of 2.
- **Noisy Student**: `python -m train noisy-student noisy_student_fashion_mnist`, three
  rounds of growing nets with noise, which no method above has. The first round has the
  labels alone:

{table(("round", *labels), _rounds(rows, counts))}

- **Noise alone**: the Noisy Student's last net ({last["parameters"]:,} parameters) and
  noise, without a teacher and the images that it labelled. What the Noisy Student
  gives more than this, its teachers gave, in points
  {_more(rows, counts)}.

Each command goes on with `--val-share 0.01 --eval-split val --labels-per-class 25
--seed 0`, for 250 labels and the first seed, and is judged by `python -m train evaluate
RUN --split test`. Pseudo-labels and the distilled net are

```bash
python -m train pseudo-label runs/supervised --data rest --out runs/rest.npy
python -m train fashion_mnist_few_labels --unlabelled rest --ratio 3 \\
  --pseudo-labels runs/rest.npy --min-confidence 0.3
python -m train fashion_mnist_few_labels --unlabelled rest --ratio 3 \\
  --teacher runs/fixmatch --temperature 2 --alpha 0.5
```

Raw results: [results/few_labels.jsonl](results/few_labels.jsonl);
`python -m docs.results --measure few_labels` makes them again ({where(rows)})."""


def _found(rows: Sequence[Row], arm: str) -> list[Row]:
    return [row for row in rows if row["arm"] == arm]


def _gain(found: Sequence[Row], alone: Sequence[Row]) -> str:
    """Mean and range of the points gained, seed by seed."""
    before = {(row["labels"], row["seed"]): row["accuracy"] for row in alone}
    points = [
        100 * (row["accuracy"] - before[row["labels"], row["seed"]]) for row in found
    ]
    mean = sum(points) / len(points)
    return f"{mean:+.1f} ({min(points):+.1f} to {max(points):+.1f})"


def _rounds(rows: Sequence[Row], counts: Sequence[int]) -> list[list[Any]]:
    """A line a round of the Noisy Student: what it comes to by the number of labels."""
    found = _found(rows, "Noisy Student")
    shares = [[row["rounds"] for row in found if row["labels"] == n] for n in counts]
    return [
        [number + 1, *(spread([rounds[number] for rounds in some]) for some in shares)]
        for number in range(len(found[0]["rounds"]))
    ]


def _more(rows: Sequence[Row], counts: Sequence[int]) -> str:
    """Points of the Noisy Student above its noise alone, by the number of labels."""
    alone = _found(rows, _NOISE_ALONE)
    found = _found(rows, "Noisy Student")
    gains = [_gain([row for row in found if row["labels"] == n], alone) for n in counts]
    parts = [f"{gain} with {n:,} labels" for gain, n in zip(gains, counts, strict=True)]
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _supervised(config: Config, folder: Path) -> Row:
    return _fit(config, folder)


def _distilled(config: Config, folder: Path) -> Row:
    knowing = folder.with_name(folder.name.replace("distilled", "FixMatch"))
    teacher = _fixmatch(config, knowing)
    student = dataclasses.replace(
        config,
        distillation=Distillation(str(knowing), temperature=2.0, alpha=0.5),
        unlabelled=_OTHERS,
    )
    row = _fit(student, folder)
    return _with(row, teacher=teacher["accuracy"], seconds=teacher["seconds"])


def _pseudo_labelled(config: Config, folder: Path) -> Row:
    teacher = folder.with_name(folder.name.replace("pseudo-label", "supervised"))
    seconds = _fit(config, teacher)["seconds"]
    file = folder.with_name(f"{folder.name}.npy")
    images, opened = open_images(teacher, "rest")
    label_images(teacher, images, file, opened=opened, say=lambda line: None)
    others = dataclasses.replace(_OTHERS, pseudo_labels=str(file), min_confidence=0.3)
    row = _fit(dataclasses.replace(config, unlabelled=others), folder)
    return _with(row, seconds=seconds)


def _fixmatch(config: Config, folder: Path) -> Row:
    return _fit(dataclasses.replace(config, unlabelled=_FIXMATCH), folder)


def _noise_alone(config: Config, folder: Path) -> Row:
    last = _stages(config, folder)[1][-1].config
    return _fit(dataclasses.replace(last, unlabelled=Unlabelled()), folder)


def _noisy_student(config: Config, folder: Path) -> Row:
    student, stages = _stages(config, folder)
    run_noisy_student(student, folder, console=_silent())
    found = [_fit(stage.config, folder / stage.name) for stage in stages]
    before = sum(row["seconds"] for row in found[:-1])
    rounds = [row["accuracy"] for row in found]
    return _with(found[-1], rounds=rounds, seconds=before)


def _stages(config: Config, folder: Path) -> tuple[NoisyStudent, list[Train]]:
    """The Noisy Student, and its stages of training."""
    noisy = dataclasses.replace(
        noisy_student.config, selection=config.selection, seed=config.seed
    )
    student = dataclasses.replace(noisy_student, config=noisy)
    return student, [s for s in plan(student, folder) if isinstance(s, Train)]


def _fit(config: Config, run: Path) -> Row:
    result = fit(config, run, console=_silent())
    evaluation, _ = evaluate_run(run, split="test", batch_size=1000)
    counts = {key: result[key] for key in ("steps", "parameters", "seconds")}
    return {"accuracy": evaluation.figures()["accuracy"], **counts}


def _with(row: Row, seconds: float, **more: Any) -> Row:
    """A row, with more in it, and the seconds of what had to be trained before."""
    return {**row, "seconds": row["seconds"] + seconds, **more}


def _silent() -> Console:
    return Console(file=io.StringIO())


ARMS: dict[str, Arm] = {
    _ALONE: _supervised,
    "pseudo-label": _pseudo_labelled,
    "FixMatch": _fixmatch,
    "distilled": _distilled,
    _NOISE_ALONE: _noise_alone,
    "Noisy Student": _noisy_student,
}
