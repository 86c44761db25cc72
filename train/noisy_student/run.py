"""Drives a Noisy Student from its plan to its report, over any number of starts."""

import importlib.util
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from train.config import Config, Unlabelled
from train.config_file import flag_values, read_record
from train.console import say
from train.data import Source
from train.data.pseudo_label_file import choose, read_header, read_pseudo_labels
from train.data.select import evaluation_images, open_unlabelled, training_images
from train.errors import UserError
from train.noisy_student.plan import (
    Label,
    NoisyStudent,
    Stage,
    Train,
    check_growth,
    plan,
    settings,
)
from train.noisy_student.summary import Labelled, Round, Summary, Trained, count_labels
from train.run.labelling import label_images
from train.run.loop import fit
from train.run.program import build
from train.run.run_folder import check_same_flags, lock, read_result
from train.storage import read_json, write_json

__all__ = ["gather", "run"]

Json = dict[str, Any]

_ABOUT = "noisy_student.json"  # What the folder holds.
_TIMES = "labelling_times.json"


def run(
    student: NoisyStudent,
    out: Path,
    *,
    recipe: str = "",
    command: str = "",
    console: Console | None = None,
) -> Summary:
    """Does all stages, or goes on where it was stopped, and reports.

    Each stage is in a folder of its own. One that has ended is not done again, so that
    the whole ends as if it had not been stopped: to the bit, on the same machine and
    versions.

    Args:
      student: what to do.
      out: the folder of the whole.
      recipe: the name of the recipe that it is of.
      command: what the report says that makes it.
      console: where progress goes; None is standard output.

    Returns:
      What the report tells.

    Raises:
      UserError: if it cannot be done, or the folder holds something else.
      SourceError: if the data cannot be used.
      NotFiniteError, Interrupted, StorageError: as `train.run.loop.fit`.
    """
    console = console or Console()
    out = out.absolute()
    about = {"format": 1, "recipe": recipe, "settings": settings(student)}
    known = _is_same(out, about)
    # Listed once for all stages: there may be millions.
    options = student.config.unlabelled
    unlabelled = open_unlabelled(student.config, options.unlabelled)
    if not known:
        _check(student, recipe)
    with lock(out):
        write_json(out / _ABOUT, about)
        for number, stage in enumerate(stages := plan(student, out), 1):
            place = f"Stage {number} of {len(stages)}, {stage.name}"
            if _has_ended(stage, out):
                say(console, f"{place}, has ended already.")
                continue
            say(console, f"{place}:")
            if isinstance(stage, Train):
                fit(
                    stage.config,
                    out / stage.name,
                    recipe=recipe,
                    console=console,
                    unlabelled_set=unlabelled,
                )
            else:
                _label(student, stage, out, unlabelled, console)
        summary = gather(student, out, unlabelled, recipe=recipe, command=command)
        write_json(out / "report.json", summary.to_json())
        _draw(out, summary, unlabelled, console)
    return summary


def gather(
    student: NoisyStudent,
    out: Path,
    unlabelled: Source,
    *,
    recipe: str = "",
    command: str = "",
) -> Summary:
    """What the folders of a Noisy Student that has ended say.

    Args:
      student: what was done.
      out: its folder.
      unlabelled: the images without labels.
      recipe: the name of the recipe that it is of.
      command: what makes it.
    """
    options = student.config.unlabelled
    stages = {stage.name: stage for stage in plan(student, out)}
    trained = {
        name: _trained(stage, out)
        for name, stage in stages.items()
        if isinstance(stage, Train)
    }
    record = read_record(out / "round0/teacher")
    result = read_result(out / "round0/teacher")
    assert record is not None and result is not None
    rounds = [
        Round(
            _labelled(student, stage, out, unlabelled, record["class_names"]),
            trained[stage.name.replace("labels.npy", "student")],
        )
        for stage in stages.values()
        if isinstance(stage, Label)
    ]
    return Summary(
        recipe=recipe,
        command=command,
        data=student.config.input.data,
        unlabelled=options.unlabelled,
        labels=len(training_images(student.config)),
        split=result["split"],
        test_images=result["test_images"],
        class_names=record["class_names"],
        min_confidence=options.min_confidence,
        per_class=options.per_class,
        kind=options.pseudo_label_kind,
        settings=settings(student),
        versions=record["versions"],
        machine=record["machine"],
        teacher=trained["round0/teacher"],
        rounds=rounds,
        final=trained.get("final"),
    )


def _is_same(out: Path, about: Json) -> bool:
    """Whether the folder holds this Noisy Student; False where it holds nothing.

    Raises:
      UserError: if it holds something else.
    """
    path = out / _ABOUT
    if path.exists():
        check_same_flags(out, _flags(read_json(path)), _flags(about))
        return True
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; a Noisy Student needs a folder.")
    if out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise UserError(
            f"{out} is not empty, and holds no Noisy Student (there is no {_ABOUT})."
        )
    return False


def _flags(about: Json) -> Json:
    # A flag that an older version did not have is at its default.
    return {"recipe": about["recipe"], **flag_values(Config()), **about["settings"]}


def _check(student: NoisyStudent, recipe: str) -> None:
    """Raises what would stop a later stage, before there is a folder."""
    config = student.config
    images = training_images(config), evaluation_images(config)
    alone = {
        stage.name: replace(stage.config, unlabelled=Unlabelled())
        for stage in plan(student, Path())
        if isinstance(stage, Train)
    }
    check_growth({of: build(alone[of], recipe, images).parameters for of in alone})


def _label(
    student: NoisyStudent,
    stage: Label,
    out: Path,
    unlabelled: Source,
    console: Console,
) -> None:
    path = out / stage.name
    start = time.monotonic()
    label_images(
        out / stage.teacher,
        unlabelled,
        path,
        batch_size=student.config.input.batch_size,
        threads=student.config.input.threads or None,
        say=partial(say, console),
    )
    times = {**_times(out), stage.name: time.monotonic() - start}
    write_json(out / _TIMES, times)


def _draw(out: Path, summary: Summary, unlabelled: Source, console: Console) -> None:
    """Draws the report, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return say(console, "For page and picture: pip install 'cnn-flax[plots]'")
    from train.noisy_student.report import write_report

    write_report(out, summary, unlabelled.read)
    for name in ("report.html", "report.png"):
        say(console, str(out / name))


def _has_ended(stage: Stage, out: Path) -> bool:
    path = out / stage.name
    if isinstance(stage, Train):
        return read_result(path) is not None
    header = read_header(path)
    return header is not None and header["labelled"] == header["images"]


def _trained(stage: Train, out: Path) -> Trained:
    result = read_result(out / stage.name)
    assert result is not None
    measured = (
        "parameters",
        "accuracy",
        "loss",
        "calibration_error",
        "steps",
        "seconds",
    )
    return Trained(
        stage=stage.name,
        model=stage.config.network.model,
        image_size=stage.config.input.image_size,
        **{name: result[name] for name in measured},
    )


def _labelled(
    student: NoisyStudent,
    stage: Label,
    out: Path,
    unlabelled: Source,
    class_names: list[str],
) -> Labelled:
    labels = read_pseudo_labels(out / stage.name)
    options, seed = student.config.unlabelled, student.config.seed
    chosen = choose(
        labels.probabilities,
        min_confidence=options.min_confidence,
        per_class=options.per_class,
        kind="hard",  # The images are the same, and there is less in memory.
        seed=seed,
    )
    known = list(unlabelled.class_names) == class_names
    return count_labels(
        labels.probabilities,
        chosen.indices,
        stage=stage.name,
        teacher=stage.teacher,
        readable=labels.readable,
        true=unlabelled.labels if known else None,
        name=unlabelled.name,
        seconds=_times(out).get(stage.name),
        seed=seed,
    )


def _times(out: Path) -> dict[str, float]:
    return read_json(out / _TIMES) or {}
