"""`python -m train advise`: recommends how to transfer weights to a data set."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from train import recipes
from train.compilation_cache import use_compilation_cache
from train.config import Config
from train.config_file import flag_values
from train.console import duration, literal, percent, program_name, say

__all__ = ["Advise", "advice_table", "trial_table"]

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Advise:
    """Recommends feature extraction, fine-tuning or training from scratch."""

    data: str
    """Data source, as for a recipe."""
    init: str
    """The weights: a file, a run, an id on the Hugging Face Hub, or the word
    published."""
    model: str | None = None
    """The model of the weights; detected by default."""
    image_size: int = 0
    """Height and width of the model's input, in pixels; 0 for that of the weights."""
    images: int = 500
    """Number of images to probe at most, for the class means and for the held-out
    images each."""
    seed: int = 0
    """Seed that samples these images."""
    try_both: bool = False
    """Also train for a few steps with features and with fine_tune."""
    steps: int = 200
    """Steps of each of these runs, with --try-both."""
    out: Path = Path("runs/advise")
    """Folder of these runs."""

    def __call__(self) -> None:
        """Runs the command."""
        use_compilation_cache()
        from train.run.advice import advise, starting_from, try_both

        console = Console()
        config = starting_from(
            self.data,
            self.init,
            model=self.model,
            image_size=self.image_size,
            seed=self.seed,
        )
        title = f"{config.network.model} ({self.init}) for {self.data}"
        with console.status("probing"):
            advice = advise(config, images=self.images)
        console.print(advice_table(title, asdict(advice)))
        say(console, f"To run it:\n{command_for(advice.method, config)}")
        if self.try_both:
            results = try_both(config, self.out, steps=self.steps, console=console)
            console.print(trial_table(results))


_FEW = 30  # Held-out images, of which one changes the accuracy by more than 3 %.
_RECIPES = {
    "features": "features_folder",
    "fine_tune": "finetune_folder",
    "scratch": "folder_resnet18",
}


def command_for(method: str, config: Config) -> str:
    """The command line that follows an advice.

    Args:
      method: `features`, `fine_tune` or `scratch`.
      config: the config that the weights were probed with.
    """
    recipe = recipes.load(_RECIPES[method])
    usual, network, images = recipe.config, config.network, config.input
    wanted = replace(
        usual,
        input=replace(images, batch_size=usual.input.batch_size),
        network=replace(network, init="" if method == "scratch" else network.init),
    )
    if usual.input.load_size:
        size = round(images.image_size / images.crop_pct)
        wanted = replace(wanted, input=replace(wanted.input, load_size=size))
    before, after = flag_values(usual), flag_values(wanted)
    words = [*program_name().split(), recipe.name]
    for name, value in after.items():
        if value != before[name]:
            words += [f"--{name.replace('_', '-')}", *_words(value)]
    return shlex.join([*words, "--out", f"runs/{recipe.name}"])


def _words(value: Any) -> list[str]:
    """A flag's value as words of a command line."""
    if isinstance(value, dict):
        value = [
            f"{k}={tuple(x) if isinstance(x, list) else x}".replace(" ", "")
            for k, x in value.items()
        ]
    return list(map(str, value if isinstance(value, list) else [value]))


def advice_table(title: str, advice: Json) -> Table:
    """The measurements behind an advice, and the recommendation.

    Args:
      title: names the images and the weights.
      advice: the fields of `train.run.advice.Advice`.
    """
    table = Table("", "", title=literal(title, "table.title"), title_justify="left")
    table.add_row("training images", f"{advice['images']:,}")
    table.add_row("classes", f"{advice['classes']:,}")
    table.add_row("images of the smallest class", f"{advice['least']:,}")
    table.add_section()
    means, held_out = advice["probed"]
    for name, share in advice["accuracy"].items():
        table.add_row(f"nearest mean, {name}", f"{percent(share)} of {held_out:,}")
    low, high = advice["interval"]
    table.add_row(
        "of the weights, in 95 of 100 cases", f"{100 * low:.0f} to {100 * high:.0f} %"
    )
    if held_out < _FEW:
        table.add_row("", f"{held_out} held-out images are few: the advice is a guess")
    table.add_row("errors that the weights avoid", percent(max(advice["gain"], 0)))
    table.caption = f"The class means are of {means:,} images."
    table.caption_justify = "left"
    table.add_section()
    table.add_row("recommended", advice["method"])
    table.add_row("because", literal(advice["reason"]))
    table.add_row("flags", literal(advice["flags"]))
    return table


def trial_table(results: Mapping[str, Json]) -> Table:
    """The trial runs, one row per kind of transfer.

    Args:
      results: maps the kind's name to the result of its run.
    """
    table = Table("", "accuracy", "loss", "steps", "training", title_justify="left")
    table.title = "Trial runs"
    best = max(results.values(), key=lambda result: result["accuracy"])
    for name, result in results.items():
        table.add_row(
            f"{name} (best)" if result is best else name,
            percent(result["accuracy"]),
            f"{result['loss']:.4f}",
            f"{result['steps']:,}",
            duration(result["seconds"]),
        )
    return table
