"""Dry run of a Noisy Student: builds every model and prints its cost."""

from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from train.console import say
from train.data import Source
from train.data.stand_in import images_or_stand_ins
from train.noisy_student.plan import (
    ModelSize,
    NoisyStudent,
    TrainStage,
    check_growth,
    equal_students,
    plan,
)
from train.run.program import Program, build, train_step_shapes

__all__ = ["dry_run"]


def dry_run(student: NoisyStudent, recipe: str, console: Console) -> None:
    """Builds each model and its training step, and prints their cost.

    The steps are traced and lowered, not compiled; even so the largest models take
    minutes. It trains and writes nothing. If the images cannot be used, it says so,
    and uses a stand-in with the teacher's default number of classes.

    Raises:
      UserError: if a stage cannot be run.
    """
    images, unlabelled, _ = images_or_stand_ins(
        student.config, partial(say, console), unlabelled=True
    )
    table = Table(title="Stages", title_justify="left")
    columns = ("", "model", "parameters", "images per step", "operations", "checkpoint")
    for column in columns:
        # In a narrow terminal, figures are wrapped rather than truncated.
        table.add_column(column, overflow="fold")
    programs: dict[str, Program] = {}
    for stage in plan(student, Path()):
        if not isinstance(stage, TrainStage):
            continue
        pseudo_labelled = None
        if stage.config.unlabelled.unlabelled and unlabelled is not None:
            kind = stage.config.unlabelled.pseudo_label_kind
            classes = len(images[0].class_names)
            pseudo_labelled = _with_placeholder_labels(unlabelled, classes, kind)
        with console.status(stage.name):
            programs[stage.name] = build(stage.config, recipe, images, pseudo_labelled)
    sizes = [
        ModelSize(name, p.parameters, p.config.network.model)
        for name, p in programs.items()
    ]
    check_growth(sizes)
    for line in equal_students(sizes):
        say(console, line)
    for name, program in programs.items():
        with console.status(name):
            table.add_row(name, *_cost(program))
    console.print(table)
    say(console, "Dry run: nothing was trained or written.")


def _with_placeholder_labels(source: Source, classes: int, kind: str) -> Source:
    """The images with labels of the shape of a teacher's."""
    if kind == "hard":
        return source
    labels = np.broadcast_to(np.float32(1 / classes), (len(source), classes))
    return source.with_columns(label=labels)


def _cost(program: Program) -> list[str]:
    """The cells of a stage's row; images per step are labelled + unlabelled ones."""
    shapes = train_step_shapes(program)
    lowered = jax.jit(program.train_step).lower(*shapes)
    operations = (lowered.cost_analysis() or {}).get("flops", 0)
    _, batch, _ = shapes
    count, size, *_ = batch["image"].shape
    if "unlabelled" in batch:
        count = f"{count} + {len(batch['unlabelled']['image'])}"
    return [
        program.record["model"]["name"],
        f"{program.parameters:,}",
        f"{count}, {size} px",
        f"{operations / 1e9:,.1f} GFLOP",
        f"{program.bytes / 1e6:,.1f} MB",
    ]
