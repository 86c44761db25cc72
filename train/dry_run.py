"""What a run would be, without running it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cnn_flax
from train.config import Config
from train.data import ImageError, Source, SourceError
from train.data.decode import Least
from train.images import evaluation_images, training_images
from train.program import Program, build, compile_steps
from train.report import say

__all__ = ["dry_run", "stand_in"]


def dry_run(config: Config, recipe: str, console: Console) -> None:
    """Builds and compiles all of a run, and says what it takes.

    It trains and writes nothing. Where the images are not there, it says so, and goes
    on with a stand-in of as many classes as the model has by itself.

    Raises:
      UserError: if the config cannot be run.
    """
    try:
        images = training_images(config), evaluation_images(config)
    except SourceError as error:
        say(console, f"The images are not there: {error}.")
        images = stand_in(config), stand_in(config)
        say(
            console,
            f"A stand-in of {len(images[0].class_names)} classes and "
            f"{images[0].channels} channels takes their place; it knows no number of "
            "images, and so none of steps.",
        )
        known = False
    else:
        known = True
    program = build(config, recipe, images)
    with console.status("compiling"):
        steps = compile_steps(program)
    console.print(_shapes(program))
    console.print(_costs(program, steps, known))
    say(console, "A dry run: nothing was trained, and nothing written.")


def stand_in(config: Config) -> Source:
    """Images of a config whose images are not there: none of them can be read."""
    network = config.network
    model = cnn_flax.create_model(network.model, **network.model_fields)
    classes = tuple(str(k) for k in range(getattr(model, "num_classes", 1000)))

    def example(index: int, least: Least):
        raise ImageError(f"image {index}", "it is a stand-in")

    return Source(
        config.input.data,
        classes,
        config.input.batch_size,
        example=example,
        name=str,
        find_labels=lambda: np.zeros(config.input.batch_size, np.int32),
        channels=len(config.input.mean),
        native_size=None,
    )


def _shapes(program: Program) -> Table:
    """What goes in, and the parameters by the model's parts."""
    table = Table("", "shape", "numbers", title="Shapes", title_justify="left")
    for name, options in (
        ("training batch", program.train_options),
        ("evaluation batch", program.eval_options),
    ):
        size, side, channels = options.values()
        dtype, shape = "uint8", (size, side, side, channels)
        if program.features:
            dtype, shape = program.features.dtype, (size, *program.features.shape)
        table.add_row(name, f"{dtype} {list(shape)}", f"{math.prod(shape):,}")
    table.add_section()
    for part, tree in program.shapes.params.items():
        leaves = jax.tree.leaves(tree)
        largest = max(leaves, key=lambda leaf: leaf.size)
        more = f", and {len(leaves) - 1} more" if len(leaves) > 1 else ""
        shape = f"{largest.dtype} {list(largest.shape)}{more}"
        table.add_row(escape(part), shape, f"{sum(leaf.size for leaf in leaves):,}")
    table.add_section()
    table.add_row("parameters", "", f"{program.parameters:,}")
    return table


def _costs(program: Program, steps: Sequence[Any], known: bool) -> Table:
    """What the steps take, and how many there are."""
    table = Table("", "training step", "evaluation step", title_justify="left")
    table.title = "Each device"
    rows: dict[str, list[str]] = {}
    for step in steps:
        for name, value in _cost(step).items():
            rows.setdefault(name, []).append(value)
    for name, values in rows.items():
        table.add_row(name, *values)
    table.add_section()
    table.add_row("a checkpoint", f"{program.bytes / 1e6:,.1f} MB")
    if known:
        count = f"{program.steps_per_epoch:,}, {program.steps:,}"
        table.add_row("steps an epoch, in all", count)
        images = f"{len(program.train):,}", f"{len(program.test):,}"
        table.add_row("images", *images)
    return table


def _cost(step: Any) -> dict[str, str]:
    """As the compiler counts it."""
    memory, costs = step.memory_analysis(), step.cost_analysis()
    parts = {
        "state, batch": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes,
        "results in the state's memory": -memory.alias_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
    }
    shown = {name: f"{abs(size) / 1e6:,.1f} MB" for name, size in parts.items()}
    total = sum(parts.values())
    return {
        "operations": f"{costs.get('flops', 0) / 1e9:,.2f} GFLOP",
        **shown,
        "memory": f"{total / 1e6:,.1f} MB",
    }
