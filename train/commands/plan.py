"""`python -m train plan`: what a run costs on chips that need not be there."""

import datetime
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Suppress

from train import recipes
from train.commands.parsing import parse
from train.compilation_cache import use_compilation_cache
from train.config import Config
from train.console import duration, literal, percent, say
from train.errors import UserError
from train.storage import storing

__all__ = ["Plan", "plan_command", "plan_table"]

_STEPS = ("training", "evaluation", "labelling")
_DOES_NOT_FIT = "does not fit"


@dataclass(frozen=True)
class Plan:
    """Compiles a recipe's steps for other chips, and prints what they cost."""

    topology: str
    """Chips to compile for: a TPU and its slice, such as v5e:4x8, or a GPU and their
    number, such as gpu:h200x8, of which the figures are estimates."""
    config: Annotated[Config, OmitArgPrefixes]
    """What to run."""
    steps: tuple[Literal["training", "evaluation", "labelling"], ...] = _STEPS
    """Steps to compile. Each takes minutes for a large net."""
    largest_batch: bool = True
    """Search for the largest batch that fits, compiling the training step several
    times."""
    train_images: int = 0
    """Number of training images, if they are not on this machine."""
    eval_images: int = 0
    """Number of images to evaluate on, if they are not on this machine."""
    json: Path | None = None
    """File to append the figures to, as one line of JSON."""
    recipe: Suppress[str] = ""

    def __call__(self) -> None:
        """Runs the command."""
        import jax

        jax.config.update("jax_platforms", "cpu")  # Whatever else there is: unused.
        use_compilation_cache()
        from train.run.largest_batch import largest_batch
        from train.run.plan import plan_run
        from train.run.topology import open_topology

        console = Console()
        topology = open_topology(self.topology)
        self._append("")  # Compiling takes minutes: now is the time to fail.
        images, is_known = self._images(console)
        with console.status("compiling"):
            plan = plan_run(self.config, self.recipe, topology, images, self.steps)
        largest = None
        if self.largest_batch and "training" in plan.steps:
            with console.status("searching for the largest batch"):
                limit = {"limit": len(images[0])} if is_known else {}
                largest = largest_batch(plan, images, **limit)
        record = plan.record()
        if not is_known:
            record |= {"training_steps": None, "seconds": None, "chip_hours": None}
        if largest is not None:
            record["largest_batch"] = largest._asdict()
        console.print(plan_table(record))
        if topology.is_estimate:
            say(
                console,
                "These are estimates, from the programs for as many CPU devices: XLA "
                "fuses more on a GPU, so real traffic and memory are lower.",
            )
        say(
            console, "Nothing was run: the times are the shortest that the chips allow."
        )
        self._append(json.dumps(record | _versions()) + "\n")

    def _append(self, text: str) -> None:
        if self.json is not None:
            with storing(self.json), self.json.open("a", encoding="utf-8") as file:
                file.write(text)

    def _images(self, console: Console) -> tuple[tuple[Any, Any], bool]:
        """The images, or stand-ins, and whether their number is known."""
        from train.data.stand_in import images_or_stand_ins

        is_known = self.train_images > 0 and self.eval_images > 0
        images = images_or_stand_ins(
            self.config,
            partial(say, console),
            counts=(
                max(self.train_images, self.config.input.batch_size),
                max(self.eval_images, 1),
            ),
            unknown="" if is_known else "--train-images and --eval-images say how many",
        )
        return images.labelled, is_known or images.are_there


def plan_command(words: Sequence[str], *, prog: str) -> Callable[[], None]:
    """Parses what follows `plan` on the command line.

    Args:
      words: the recipe and its flags.
      prog: name of the program, for the usage line.

    Returns:
      The command, with its flags set.

    Raises:
      UserError: if the recipe is missing.
    """
    usage = f"{prog} plan RECIPE --topology v5e:4x8 [--FLAG ..]"
    if not words:
        raise UserError(f"Name a recipe: {usage}.")
    if words[0] in ("-h", "--help"):
        return lambda: print(usage)
    if words[0] not in recipes.names():
        raise recipes.no_recipe(words[0])
    recipe = recipes.load(words[0])
    default = Plan(tyro.MISSING, recipe.config, recipe=recipe.name)
    return parse(
        Plan,
        prog=f"{prog} plan {recipe.name}",
        args=words[1:],
        default=default,
        description=recipe.text,
    )


def _versions() -> dict[str, Any]:
    """What compiled, and when."""
    names = "jax", "libtpu"
    found = {x.name: x.version for x in importlib.metadata.distributions()}
    return {
        "versions": {name: found.get(name) for name in names},
        "date": str(datetime.date.today()),
    }


def plan_table(record: Mapping[str, Any]) -> Table:
    """The figures of a plan: one column per step, then those of the run.

    Args:
      record: of `train.run.plan.RunPlan`; also `largest_batch`, if it was searched for.
    """
    steps = list(record["steps"].values())
    parts, chip = record["batch_parts"], record["chip"]
    title = f"{record['model']}, {record['dtype']}, on {record['topology']}: per chip"
    table = Table("", *(step["name"] for step in steps), title_justify="left")
    table.title = literal(title, "table.title")
    table.add_row("images", *(f"{step['images'] / parts:,g}" for step in steps))
    columns = [_cost_cells(step, chip) for step in steps]
    for name in dict.fromkeys(name for cells in columns for name in cells):
        table.add_row(name, *(cells.get(name, "") for cells in columns))
    table.add_section()
    columns = [_time_cells(step) for step in steps]
    for name in dict.fromkeys(name for cells in columns for name in cells):
        table.add_row(name, *(cells.get(name, "") for cells in columns))
    table.add_section()
    if record["training_steps"]:
        table.add_row("steps of the run", f"{record['training_steps']:,}")
    if not record["fits"]:
        table.add_row("its time", _DOES_NOT_FIT)
    elif record["seconds"] is not None:
        hours = f"{record['chip_hours']:,.1f} chip-hours"
        table.add_row("its time", f"{duration(record['seconds'])}, {hours}")
    if found := record.get("largest_batch"):
        above = f"; {found['exceeds']:,} does not" if found["exceeds"] else ""
        table.add_row("largest batch", f"{found['fits']:,} fits{above}")
        table.add_row("compilations for it", f"{found['compilations']}")
    return table


def _cost_cells(step: Mapping[str, Any], chip: Mapping[str, Any]) -> dict[str, str]:
    """What a step needs of a chip, by the name of the row."""
    cost = step["cost"]
    if not cost:
        most = f"more than {chip['memory'] / 1e9:,.1f} GB"
        return {"memory": f"{most}: {_DOES_NOT_FIT}"}
    parts = {
        "state, batch": "arguments",
        "results": "results",
        "temporaries": "temporaries",
        "program": "code",
    }
    share = percent(step["needs"] / chip["memory"])
    verdict = "" if step["fits"] else f": {_DOES_NOT_FIT}"
    return {
        **{name: f"{cost[part] / 1e6:,.1f} MB" for name, part in parts.items()},
        "memory": f"{step['needs'] / 1e9:,.3f} GB, {share}{verdict}",
        "operations": f"{cost['flops'] / 1e9:,.1f} GFLOP",
        "traffic": f"{cost['traffic'] / 1e9:,.3f} GB",
        **{
            found[
                "kind"
            ]: f"{found['count']:,} of {found['bytes'] / 1e6:,.2f} MB in all"
            for found in cost["collectives"]
        },
    }


def _time_cells(step: Mapping[str, Any]) -> dict[str, str]:
    """The times of a step, by the name of the row; none if it does not fit."""
    roof = step["roofline"]
    if not roof:
        return {}
    return {
        **{
            name: f"{1e3 * roof[name]:,.3f} ms"
            for name in ("compute", "memory", "links")
        },
        "step": f"{1e3 * roof['seconds']:,.3f} ms, bound by {roof['binds']}",
        "images/s, all chips": f"{step['images'] / roof['seconds']:,.0f}",
    }
