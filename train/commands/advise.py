"""`python -m train advise`: recommends how to transfer weights to a data set."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from train.compilation_cache import use_compilation_cache
from train.console import duration, literal, percent

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
        if self.try_both:
            results = try_both(config, self.out, steps=self.steps, console=console)
            console.print(trial_table(results))


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
