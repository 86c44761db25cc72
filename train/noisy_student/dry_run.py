"""What a Noisy Student would be, without running it."""

from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from train.console import say
from train.data import Source, SourceError
from train.data.select import evaluation_images, open_unlabelled, training_images
from train.data.stand_in import stand_in
from train.noisy_student.plan import NoisyStudent, Train, check_growth, plan
from train.run.program import Program, build, train_step_shapes

__all__ = ["dry_run"]


def dry_run(student: NoisyStudent, recipe: str, console: Console) -> None:
    """Builds each model and its step of training, and says what they take.

    The steps are traced and lowered, not compiled; for the largest models that takes
    minutes. Nothing is trained or written. Where the images are not there, it says so,
    and goes on with a stand-in of as many classes as the teacher has by itself.

    Raises:
      UserError: if a stage cannot be run.
    """
    config = student.config
    try:
        images = training_images(config), evaluation_images(config)
        unlabelled = open_unlabelled(config, config.unlabelled.unlabelled, keep=False)
    except SourceError as error:
        say(
            console, f"The images are not there: {error}. A stand-in takes their place."
        )
        images = stand_in(config), stand_in(config)
        unlabelled = images[0]
    table = Table(title="Stages", title_justify="left")
    for column in ("", "model", "parameters", "a step's images", "operations", "saved"):
        # In a narrow terminal figures go on in a line below, rather than being cut.
        table.add_column(column, overflow="fold")
    programs = {}
    for stage in plan(student, Path()):
        if not isinstance(stage, Train):
            continue
        others = None
        if stage.config.unlabelled.unlabelled:
            kind = stage.config.unlabelled.pseudo_label_kind
            others = _labelled(unlabelled, len(images[0].class_names), kind)
        with console.status(stage.name):
            programs[stage.name] = build(stage.config, recipe, images, others)
    check_growth({name: program.parameters for name, program in programs.items()})
    for name, program in programs.items():
        with console.status(name):
            table.add_row(name, *_takes(program))
    console.print(table)
    say(console, "A dry run: nothing was trained, and nothing written.")


def _labelled(source: Source, classes: int, kind: str) -> Source:
    """The images with such labels as a teacher would give them."""
    if kind == "hard":
        return source
    labels = np.broadcast_to(np.float32(1 / classes), (len(source), classes))
    return source.with_columns(label=labels)


def _takes(program: Program) -> list[str]:
    """The cells of a stage's row; a step's images are the labelled and the others."""
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
