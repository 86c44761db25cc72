"""`--dry-run`: builds and compiles a run, and prints its cost without running it."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from train.config import Config
from train.console import class_line, literal, say
from train.data.stand_in import images_or_stand_ins
from train.determinism import require_determinism
from train.run.compiled_cost import cost_of
from train.run.program import Program, build, compile_steps

__all__ = ["dry_run"]


def dry_run(config: Config, recipe: str, console: Console) -> None:
    """Builds and compiles a run, and prints its shapes and cost.

    Nothing is trained or written. If the images cannot be used, a stand-in with the
    model's default number of classes takes their place, and a line says so.

    Raises:
      UserError: if the config cannot be run.
    """
    require_determinism(config.parallelism.deterministic)
    images = images_or_stand_ins(
        config,
        partial(say, console),
        unknown="the numbers of images and of steps are unknown",
    )
    program = build(config, recipe, images.labelled)
    if images.are_there:
        say(console, class_line(program.train.class_names))
    with console.status("compiling"):
        steps = compile_steps(program)
    console.print(_shapes(program))
    console.print(_costs(program, steps, images.are_there))
    say(console, "Dry run: nothing was trained or written.")


def _shapes(program: Program) -> Table:
    """The batches, and the parameters of each of the model's modules."""
    table = Table("", "shape", "numbers", title="Shapes", title_justify="left")
    for name, batch in (
        ("training batch", program.train_batch),
        ("evaluation batch", program.eval_batch),
    ):
        count, size, channels = batch
        dtype, shape = "uint8", (count, size, size, channels)
        if program.features:
            dtype, shape = program.features.dtype, (count, *program.features.shape)
        table.add_row(name, f"{dtype} {list(shape)}", f"{math.prod(shape):,}")
    table.add_section()
    for part, tree in program.shapes.params.items():
        leaves = jax.tree.leaves(tree)
        largest = max(leaves, key=lambda leaf: leaf.size)
        more = f", and {len(leaves) - 1} more" if len(leaves) > 1 else ""
        shape = f"{largest.dtype} {list(largest.shape)}{more}"
        table.add_row(literal(part), shape, f"{sum(leaf.size for leaf in leaves):,}")
    table.add_section()
    table.add_row("parameters", "", f"{program.parameters:,}")
    return table


def _costs(program: Program, steps: Sequence[Any], has_images: bool) -> Table:
    """The cost of each step, and with images, the number of steps."""
    table = Table("", "training step", "evaluation step", title_justify="left")
    table.title = "Per device"
    rows: dict[str, list[str]] = {}
    parts = program.config.optimization.gradient_accumulation, 1
    for step, count in zip(steps, parts, strict=True):
        for name, value in _cost(step, count).items():
            rows.setdefault(name, []).append(value)
    for name, values in rows.items():
        table.add_row(name, *values)
    table.add_section()
    table.add_row("checkpoint", f"{program.bytes / 1e6:,.1f} MB")
    if has_images:
        count = f"{program.steps_per_epoch:,}, {program.steps:,}"
        table.add_row("steps per epoch, in all", count)
        images = f"{len(program.train):,}", f"{len(program.test):,}"
        table.add_row("images", *images)
    return table


def _cost(step: Any, parts: int) -> dict[str, str]:
    """The memory and operations of a compiled step, which runs in so many parts."""
    cost = cost_of(step, parts)
    sizes = {
        "state, batch": cost.arguments,
        "results": cost.results,
        "temporary": cost.temporaries,
        "program": cost.code,
        "memory": cost.memory,
    }
    return {
        "operations": f"{cost.flops / 1e9:,.2f} GFLOP",
        **{name: f"{size / 1e6:,.1f} MB" for name, size in sizes.items()},
    }
