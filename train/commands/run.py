"""`python -m train RECIPE`: runs a recipe, or resumes a run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Column, Table
from tyro.conf import OmitArgPrefixes, Suppress

from train.compilation_cache import use_compilation_cache
from train.config import Config
from train.console import duration, figure_rows, literal, percent
from train.errors import UserError
from train.hosts import is_leader, joined
from train.joining import Hosts
from train.recipes import Recipe

__all__ = ["Run", "result_table", "run_command", "silence_orbax"]


@dataclass(frozen=True)
class Run:
    """Runs a recipe, or resumes a run."""

    out: Path
    """Folder of the run: a new one, or that of the run to resume."""
    dry_run: bool
    """Build and compile everything and print its cost, without training or writing
    anything."""
    config: Annotated[Config, OmitArgPrefixes]
    """What to run."""
    extend: bool = False
    """Train the run in the folder for more epochs than it began with: give the new
    number as --epochs. The schedule then spans all of them."""
    hosts: Annotated[Hosts, OmitArgPrefixes] = Hosts()
    """Which processes it runs on."""
    recipe: Suppress[str] = ""

    def __call__(self) -> None:
        """Runs the command."""
        if self.dry_run:
            if self.hosts.coordinator:
                raise UserError(
                    "--dry-run is for one process: leave out --coordinator."
                )
            from train.commands.dry_run import dry_run
            from train.data.open_source import check_outside

            images = self.config.input.data, self.config.unlabelled.unlabelled
            check_outside(self.out, *images)
            return dry_run(self.config, self.recipe, Console())
        use_compilation_cache()
        silence_orbax()
        with joined(self.hosts):
            from train.run.loop import fit

            console = Console(quiet=bool(self.hosts.coordinator) and not is_leader())
            result = fit(
                self.config,
                self.out,
                recipe=self.recipe,
                console=console,
                extend=self.extend,
            )
            console.print(result_table(self.out, result))


def run_command(recipe: Recipe) -> Any:
    """A recipe's subcommand, for `tyro.cli`.

    Raises:
      UserError: if the recipe is a Noisy Student, which has a command of its own.
    """
    if recipe.noisy_student:
        raise UserError(
            f"{recipe.name} is a Noisy Student: run it with "
            f"`python -m train noisy-student {recipe.name}`."
        )
    out = Path("runs", recipe.name)
    default = Run(out, False, recipe.config, recipe=recipe.name)
    return Annotated[
        Run,
        tyro.conf.subcommand(recipe.name, default=default, description=recipe.text),
    ]


def silence_orbax() -> None:
    """Turns off Orbax's log, which prints tracebacks of the errors that it raises."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def result_table(run: Path, result: Mapping[str, Any]) -> Table:
    """The final figures of a run.

    Args:
      run: its folder.
      result: the contents of its `result.json`.
    """
    table = Table("", Column(literal(run)), title="Result", title_justify="left")
    for name, value in figure_rows(result, result["classes"]):
        table.add_row(name, value)
    if "ema_accuracy" in result:
        table.add_row("accuracy of the EMA", percent(result["ema_accuracy"]))
        table.add_row("loss of the EMA", f"{result['ema_loss']:.4f}")
    table.add_row(f"{result['split']} images", f"{result['test_images']:,}")
    if result["unreadable_images"]:
        table.add_row("unreadable images", f"{result['unreadable_images']:,}")
    table.add_row("parameters", f"{result['parameters']:,}")
    table.add_row("epochs, steps", f"{result['epochs']:,}, {result['steps']:,}")
    table.add_row(
        "training",
        f"{duration(result['seconds'])}, {result['images_per_second']:,.0f} images/s",
    )
    return table
