"""Runs a Noisy Student from its plan to its report, resuming it if interrupted."""

import importlib.util
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from cnn_flax.installing import install_command
from train.config import Unlabelled
from train.config_file import as_begun, read_record
from train.console import say
from train.data import Source
from train.data.pseudo_label_file import (
    read_header,
    read_pseudo_labels,
    select_pseudo_labels,
)
from train.data.select import (
    check_output,
    evaluation_images,
    open_unlabelled,
    training_images,
)
from train.determinism import require_determinism
from train.errors import UserError
from train.noisy_student.plan import (
    LabelStage,
    ModelSize,
    NoisyStudent,
    Stage,
    TrainStage,
    check_growth,
    equal_students,
    plan,
    settings,
)
from train.noisy_student.summary import (
    LabelSummary,
    ModelSummary,
    RoundSummary,
    Summary,
    summarize_labels,
)
from train.run.labelling import label_images
from train.run.loop import fit
from train.run.program import build
from train.run.reporting import reporting
from train.run.run_folder import check_same_flags, lock, read_result, whole_result
from train.storage import read_json, storing, write_json

__all__ = ["run", "summarize"]

Json = dict[str, Any]

_RECORD = "noisy_student.json"  # Recipe and flags.
_FIELDS = {"recipe": str, "settings": dict}
_LABELLING_TIMES = "labelling_times.json"  # Seconds, by stage.


def run(
    student: NoisyStudent,
    out: Path,
    *,
    recipe: str = "",
    command: str = "",
    console: Console | None = None,
) -> Summary:
    """Runs all stages, or resumes them, and writes the report.

    Each stage has its own folder. A completed stage is not repeated, so that an
    interrupted Noisy Student gives the same result as an uninterrupted one: to the bit,
    on the same machine and versions.

    Args:
      student: the Noisy Student.
      out: its folder.
      recipe: name of its recipe.
      command: the command to reproduce it, for the report.
      console: where progress is printed; None for standard output.

    Returns:
      The summary that the report is made from.

    Raises:
      UserError: if it cannot be run, or the folder holds something else.
      SourceError: if the data cannot be used.
      NotFiniteError, Interrupted, StorageError: as `train.run.loop.fit`.
    """
    console = console or Console()
    require_determinism(student.config.parallelism.deterministic)
    out = out.absolute()
    student = _as_begun(student, read_json(out / _RECORD, _FIELDS))
    record = {"format": 1, "recipe": recipe, "settings": settings(student)}
    is_resumed = _is_same(out, record)
    options = student.config.unlabelled
    if not is_resumed:
        check_output(student.config, out)
    # Listed once for all stages: there may be millions of images.
    unlabelled = open_unlabelled(student.config, options.unlabelled)
    if not is_resumed:
        for line in _check(student, recipe):
            say(console, line)
    with lock(out):
        with storing(out):
            write_json(out / _RECORD, record)
        for number, stage in enumerate(stages := plan(student, out), 1):
            heading = f"Stage {number} of {len(stages)}, {stage.name}"
            if _has_ended(stage, out):
                say(console, f"{heading}, has ended already.")
                continue
            say(console, f"{heading}:")
            if isinstance(stage, TrainStage):
                fit(
                    stage.config,
                    out / stage.name,
                    recipe=recipe,
                    console=console,
                    unlabelled_set=unlabelled,
                )
            else:
                _label(student, stage, out, unlabelled, console)
        summary = summarize(student, out, unlabelled, recipe=recipe, command=command)
        with storing(out):
            write_json(out / "report.json", summary.to_json())
        _write_report(out, summary, unlabelled, console)
    return summary


def summarize(
    student: NoisyStudent,
    out: Path,
    unlabelled: Source,
    *,
    recipe: str = "",
    command: str = "",
) -> Summary:
    """Summarizes a completed Noisy Student from its folder.

    Args:
      student: the Noisy Student.
      out: its folder.
      unlabelled: the unlabelled images.
      recipe: name of its recipe.
      command: the command to reproduce it.
    """
    options = student.config.unlabelled
    stages = {stage.name: stage for stage in plan(student, out)}
    models = {
        name: _summarize_model(stage, out)
        for name, stage in stages.items()
        if isinstance(stage, TrainStage)
    }
    record = read_record(out / "round0/teacher", whole=True)
    result = read_result(out / "round0/teacher")
    assert record is not None and result is not None
    rounds = [
        RoundSummary(
            _summarize_labels(student, stage, out, unlabelled, record["class_names"]),
            models[stage.name.replace("labels.npy", "student")],
        )
        for stage in stages.values()
        if isinstance(stage, LabelStage)
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
        teacher=models["round0/teacher"],
        rounds=rounds,
        final=models.get("final"),
    )


def _is_same(out: Path, record: Json) -> bool:
    """Whether the folder holds this Noisy Student; False if it is empty or missing.

    Raises:
      UserError: if it holds something else.
    """
    path = out / _RECORD
    if path.exists():
        check_same_flags(out, _flags(read_json(path, _FIELDS)), _flags(record))
        return True
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; a Noisy Student needs a folder.")
    if out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise UserError(
            f"{out} is not empty, and holds no Noisy Student (there is no {_RECORD})."
        )
    return False


def _flags(record: Json) -> Json:
    # Flags that an older version did not have.
    usual = settings(_as_begun(NoisyStudent(), record))
    return {"recipe": record["recipe"], **usual, **record["settings"]}


def _as_begun(student: NoisyStudent, record: Json | None) -> NoisyStudent:
    """The Noisy Student as the version of a record ran it, if there is one."""
    if record is None:
        return student
    return replace(student, config=as_begun(student.config, record["settings"]))


def _check(student: NoisyStudent, recipe: str) -> list[str]:
    """Raises any error of a later stage now, before anything is written.

    Returns:
      One line for each student that has another name than its teacher, and is the same
      net.
    """
    config = student.config
    images = training_images(config), evaluation_images(config)
    if images[0].multi_label:
        raise UserError(
            f"{images[0].spec} has several classes per image, and a Noisy Student "
            "learns one."
        )
    sizes = []
    for stage in plan(student, Path()):
        if isinstance(stage, TrainStage):
            # There are no pseudo-labels yet.
            supervised = replace(stage.config, unlabelled=Unlabelled())
            program = build(supervised, recipe, images)
            name = stage.config.network.model
            sizes.append(ModelSize(stage.name, program.parameters, name))
    check_growth(sizes)
    return equal_students(sizes)


def _label(
    student: NoisyStudent,
    stage: LabelStage,
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
    times = {**_labelling_times(out), stage.name: time.monotonic() - start}
    with storing(out):
        write_json(out / _LABELLING_TIMES, times)


def _write_report(
    out: Path, summary: Summary, unlabelled: Source, console: Console
) -> None:
    """Writes the page and the poster, if matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return say(
            console, f"For report.html and report.png: {install_command('plots')}"
        )
    from train.noisy_student.report import write_report

    with reporting("report.html or report.png could not be drawn", console):
        write_report(out, summary, unlabelled.read)
        for name in ("report.html", "report.png"):
            say(console, str(out / name))


def _has_ended(stage: Stage, out: Path) -> bool:
    path = out / stage.name
    if isinstance(stage, TrainStage):
        return read_result(path) is not None
    header = read_header(path)
    return header is not None and header["labelled"] == header["images"]


def _summarize_model(stage: TrainStage, out: Path) -> ModelSummary:
    result = whole_result(out / stage.name)
    figures = (
        "parameters",
        "accuracy",
        "loss",
        "calibration_error",
        "steps",
        "seconds",
    )
    return ModelSummary(
        stage=stage.name,
        model=stage.config.network.model,
        image_size=stage.config.input.image_size,
        **{name: result[name] for name in figures},
    )


def _summarize_labels(
    student: NoisyStudent,
    stage: LabelStage,
    out: Path,
    unlabelled: Source,
    class_names: list[str],
) -> LabelSummary:
    labels = read_pseudo_labels(out / stage.name)
    options, seed = student.config.unlabelled, student.config.seed
    selected = select_pseudo_labels(
        labels.probabilities,
        min_confidence=options.min_confidence,
        per_class=options.per_class,
        kind="hard",  # The same images as with soft labels, in less memory.
        seed=seed,
    )
    has_labels = list(unlabelled.class_names) == class_names
    return summarize_labels(
        labels.probabilities,
        selected.indices,
        stage=stage.name,
        teacher=stage.teacher,
        readable=labels.readable,
        true=unlabelled.labels if has_labels else None,
        name=unlabelled.name,
        seconds=_labelling_times(out).get(stage.name),
        seed=seed,
    )


def _labelling_times(out: Path) -> dict[str, float]:
    times = read_json(out / _LABELLING_TIMES) or {}
    numbers = isinstance(times, dict) and all(
        isinstance(seconds, int | float) for seconds in times.values()
    )
    if not numbers:
        raise UserError(f"{out / _LABELLING_TIMES} is damaged: remove it.")
    return times
