"""What people read: progress, and the tables at the end."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from train.data import Source
from train.evaluation import Evaluation
from train.folder import read_metrics
from train.noisy_student.facts import Facts
from train.pseudo_labels import PseudoLabels, predictions

__all__ = [
    "RunProgress",
    "advice_table",
    "comparison_table",
    "evaluation_table",
    "draw",
    "noisy_student_table",
    "prediction_table",
    "pseudo_label_table",
    "result_table",
    "say",
    "scaling_table",
    "trial_table",
]

Json = Mapping[str, Any]
_BAR = 20  # Characters that stand for all images.
_ENDS = 10  # Of many classes, the most and the least frequent ones are shown.


class RunProgress:
    """A bar on a terminal, plain lines elsewhere.

    A context: the bar is there inside it.
    """

    def __init__(
        self, console: Console, *, start: int, steps: int, epochs: int
    ) -> None:
        """Prepares the bar.

        Args:
          console: where it goes.
          start: steps that were done before.
          steps: steps of the whole run.
          epochs: epochs of the whole run.
        """
        self._console = console
        self._steps = steps
        self._epochs = epochs
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(
            "", total=steps, completed=start, figures="waiting for the first figures"
        )

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def step(self) -> None:
        """Notes that a step was started."""
        self._bar.advance(self._task)

    def trained(self, line: Json) -> None:
        """Shows a line of training metrics."""
        figures = (
            f"loss {line['loss']:.4f}  accuracy {_percent(line['accuracy'])}  "
            f"{line['images_per_second']:,.0f} images/s"
        )
        self._bar.update(self._task, figures=figures)
        if not self._console.is_terminal:
            left = _duration(self._bar.tasks[0].time_remaining or 0)
            say(
                self._console,
                f"step {line['step']}/{self._steps}  {figures}  {left} left",
            )

    def evaluated(self, line: Json) -> None:
        """Shows a line of evaluation metrics."""
        say(
            self._console,
            f"epoch {line['epoch']:g}/{self._epochs}  "
            f"{line['split']} loss {line['loss']:.4f}  "
            f"{line['split']} accuracy {_percent(line['accuracy'])}{_beside(line)}",
        )


def say(console: Console, text: str) -> None:
    """Prints a line as it is."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def result_table(run: Path, result: Json) -> Table:
    """How a run ended.

    Args:
      run: its folder.
      result: what its `result.json` holds.
    """
    table = Table("", escape(str(run)), title="Result", title_justify="left")
    for name, value in _figure_rows(result, result["classes"]):
        table.add_row(name, value)
    if "ema_accuracy" in result:
        table.add_row("accuracy of the EMA", _percent(result["ema_accuracy"]))
        table.add_row("loss of the EMA", f"{result['ema_loss']:.4f}")
    table.add_row(f"{result['split']} images", f"{result['test_images']:,}")
    if result["unreadable_images"]:
        table.add_row("unreadable images", f"{result['unreadable_images']:,}")
    table.add_row("parameters", f"{result['parameters']:,}")
    table.add_row("epochs, steps", f"{result['epochs']:,}, {result['steps']:,}")
    table.add_row(
        "training",
        f"{_duration(result['seconds'])}, {result['images_per_second']:,.0f} images/s",
    )
    return table


def draw(
    run: Path,
    record: Json,
    evaluation: Evaluation,
    source: Source,
    console: Console,
) -> None:
    """Draws a run's pictures into its folder, where matplotlib is installed.

    Args:
      run: its folder.
      record: what its `config.json` holds.
      evaluation: of the test images.
      source: the test images.
      console: where the names of the pictures go.
    """
    if importlib.util.find_spec("matplotlib") is None:
        say(console, "For pictures of the run: pip install 'cnn-flax[plots]'")
        return
    from train import plots

    title = f"{record['model']['name']} on {source.spec}"
    names = record["class_names"]
    figures = {
        "learning_curves": plots.learning_curves(read_metrics(run), title),
        "confusion_matrix": plots.confusion_matrix(evaluation, names, title),
        "worst_images": plots.worst_images(evaluation, names, source.read, title),
    }
    for name, figure in figures.items():
        path = run / f"{name}.png"
        figure.savefig(path, bbox_inches="tight")
        say(console, str(path))


def comparison_table(
    runs: Mapping[str, tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]],
) -> Table:
    """Runs beside each other, a row each.

    Args:
      runs: from a run's label to what its `config.json` and `metrics.jsonl` hold.
    """
    table = Table("run", "model", "epochs", "loss", "accuracy", "best accuracy")
    for label, (record, lines) in runs.items():
        judged = [line for line in lines if line["split"] != "train"]
        figures = ["", "", ""]
        if judged:
            best = max(judged, key=lambda line: line["accuracy"])
            figures = [
                f"{judged[-1]['loss']:.4f}",
                _percent(judged[-1]["accuracy"]),
                f"{_percent(best['accuracy'])} (epoch {best['epoch']:g})",
            ]
        epoch = f"{lines[-1]['epoch']:g}" if lines else "0"
        epochs = f"{epoch} of {record['config']['epochs']}"
        model = record["model"]["name"]
        table.add_row(escape(label), model, epochs, *figures)
    return table


def evaluation_table(
    title: str, evaluation: Evaluation, class_names: Sequence[str]
) -> Table:
    """Figures over the whole set, then the accuracy of each class.

    Args:
      title: what was evaluated on what.
      evaluation: of `n` images.
      class_names: K names.
    """
    classes = len(class_names)
    table = Table("", "", "images", title=escape(title), title_justify="left")
    images = f"{len(evaluation.label):,}"
    for name, value in _figure_rows(evaluation.figures(), classes):
        table.add_row(name, value, images)
    error = _percent(evaluation.calibration_error())
    table.add_row("calibration error", error, images)
    table.add_section()
    counts = np.bincount(evaluation.label, minlength=classes)
    shares = evaluation.class_accuracy(classes)
    for name, share, count in zip(class_names, shares, counts, strict=True):
        table.add_row(escape(name), _percent(share) if count else "", f"{count:,}")
    return table


def prediction_table(
    paths: Sequence[Path], probabilities: np.ndarray, class_names: Sequence[str]
) -> Table:
    """The most probable classes of each image, up to five.

    Args:
      paths: of the n images.
      probabilities: float `[n, K]`.
      class_names: K names.
    """
    table = Table("image", "class", "probability", title_justify="left")
    for path, row in zip(paths, probabilities, strict=True):
        for place, k in enumerate(np.argsort(-row, kind="stable")[:5]):
            name = "" if place else escape(str(path))
            table.add_row(name, escape(class_names[int(k)]), _percent(row[k]))
        table.add_section()
    return table


def pseudo_label_table(title: str, labels: PseudoLabels, source: Source) -> Table:
    """How confident a teacher is, what it sees how often, and how often it is right.

    Args:
      title: what was labelled.
      labels: of n images.
      source: these images; their labels, where they are of the teacher's classes, say
        what is right.
    """
    names = labels.header["class_names"]
    classes, confidences = predictions(labels.probabilities)
    readable = labels.readable
    known = list(source.class_names) == names
    right = source.labels == classes if known else None
    table = Table("", "images", "share", title=escape(title), title_justify="left")
    if known:
        table.add_column("accuracy")
    table.add_column("", no_wrap=True)

    def row(name: str, among: np.ndarray) -> None:
        count, share = int(among.sum()), float(among.sum() / max(readable.sum(), 1))
        cells = [escape(name), f"{count:,}", _percent(share)]
        if right is not None:
            cells.append(_percent(right[among].mean()) if count else "")
        table.add_row(*cells, "█" * round(_BAR * share))

    row("all", readable)
    if not readable.all():
        table.add_row("unreadable", f"{(~readable).sum():,}")
    table.add_section()
    bins = np.clip(np.ceil(np.nan_to_num(confidences) * 10).astype(int) - 1, 0, 9)
    for k in range(10):
        among = readable & (bins == k)
        if among.any():
            row(f"confidence {k / 10:g} to {(k + 1) / 10:g}", among)
    table.add_section()
    counts = np.bincount(classes[readable], minlength=len(names))
    frequent = np.argsort(-counts, kind="stable")
    shown = range(len(names))
    if len(names) > 2 * _ENDS:
        shown = [*frequent[:_ENDS], *frequent[-_ENDS:]]
    for place, k in enumerate(shown):
        if len(shown) < len(names) and place == _ENDS:
            table.add_row(f"... {len(names) - len(shown):,} more classes ...")
        row(names[k], readable & (classes == k))
    return table


def scaling_table(
    best: Sequence[float], points: Sequence[tuple[Sequence[float], Json]]
) -> Table:
    """What each net of a search for scaling coefficients gave.

    Args:
      best: alpha, beta and gamma of the most accurate.
      points: these three of each net, and its run's result.
    """
    columns = ("depth", "width", "resolution", "work", "parameters", "accuracy", "")
    table = Table(*columns, title="Scaling", title_justify="left")
    for point, result in points:
        alpha, beta, gamma = point
        table.add_row(
            *(f"{value:g}" for value in point),
            f"{alpha * beta**2 * gamma**2:.2f}",
            f"{result['parameters']:,}",
            _percent(result["accuracy"]),
            "best" if point == best else "",
        )
    return table


def noisy_student_table(facts: Facts) -> Table:
    """The models of a Noisy Student, a row each."""
    columns = ("stage", "model", "parameters", "accuracy", "loss", "training")
    title = f"Noisy Student, on {facts.test_images:,} {facts.split} images"
    table = Table(*columns, title=title, title_justify="left")
    for model in facts.models:
        table.add_row(
            model.stage,
            model.model,
            f"{model.parameters:,}",
            _percent(model.accuracy),
            f"{model.loss:.4f}",
            _duration(model.seconds),
        )
    return table


def advice_table(title: str, advice: Json) -> Table:
    """What the images and the weights say, and what follows.

    Args:
      title: which they are.
      advice: the fields of `train.advise.Advice`.
    """
    table = Table("", "", title=escape(title), title_justify="left")
    table.add_row("training images", f"{advice['images']:,}")
    table.add_row("classes", f"{advice['classes']:,}")
    table.add_row("images of the smallest class", f"{advice['least']:,}")
    table.add_section()
    means, held_out = advice["probed"]
    for name, share in advice["accuracy"].items():
        table.add_row(f"nearest mean, {name}", f"{_percent(share)} of {held_out:,}")
    table.add_row("errors that the weights avoid", _percent(max(advice["gain"], 0)))
    table.caption = f"Means are of {means:,} images."
    table.caption_justify = "left"
    table.add_section()
    table.add_row("suits", advice["method"])
    table.add_row("because", escape(advice["reason"]))
    table.add_row("flags", escape(advice["flags"]))
    return table


def trial_table(results: Mapping[str, Json]) -> Table:
    """Ways of transfer beside each other, a row each.

    Args:
      results: from a way's name to its run's result.
    """
    table = Table("", "accuracy", "loss", "steps", "training", title_justify="left")
    table.title = "Tried"
    best = max(results.values(), key=lambda result: result["accuracy"])
    for name, result in results.items():
        table.add_row(
            f"{name} (best)" if result is best else name,
            _percent(result["accuracy"]),
            f"{result['loss']:.4f}",
            f"{result['steps']:,}",
            _duration(result["seconds"]),
        )
    return table


def _figure_rows(figures: Json, classes: int) -> list[tuple[str, str]]:
    rows = [("accuracy", _percent(figures["accuracy"]))]
    if classes > 5:
        rows.append(("top-5 accuracy", _percent(figures["top5_accuracy"])))
    return [*rows, ("loss", f"{figures['loss']:.4f}")]


def _beside(line: Json) -> str:
    """What a line of evaluation says of the running means, where there are any."""
    return (
        f"  of the EMA {_percent(line['ema_accuracy'])}" if "ema_loss" in line else ""
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
