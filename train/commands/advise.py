"""`python -m train advise`: recommends a kind of transfer for images and weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from train.compilation_cache import use_compilation_cache
from train.console import duration, percent

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
    """The model that they are of; by default it is detected."""
    image_size: int = 0
    """Height and width of the model's input, in pixels; 0 for the weights' own."""
    images: int = 500
    """Largest number of images to probe, for the class means and held out."""
    seed: int = 0
    """Samples these images."""
    try_both: bool = False
    """Also train both ways, for a few steps."""
    steps: int = 200
    """Number of these steps."""
    out: Path = Path("runs/advise")
    """Folder of their runs."""

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
    """What was measured of images and weights, and the recommendation.

    Args:
      title: which images and weights.
      advice: the fields of `train.run.advice.Advice`.
    """
    table = Table("", "", title=escape(title), title_justify="left")
    table.add_row("training images", f"{advice['images']:,}")
    table.add_row("classes", f"{advice['classes']:,}")
    table.add_row("images of the smallest class", f"{advice['least']:,}")
    table.add_section()
    means, held_out = advice["probed"]
    for name, share in advice["accuracy"].items():
        table.add_row(f"nearest mean, {name}", f"{percent(share)} of {held_out:,}")
    table.add_row("errors that the weights avoid", percent(max(advice["gain"], 0)))
    table.caption = f"Means are of {means:,} images."
    table.caption_justify = "left"
    table.add_section()
    table.add_row("suits", advice["method"])
    table.add_row("because", escape(advice["reason"]))
    table.add_row("flags", escape(advice["flags"]))
    return table


def trial_table(results: Mapping[str, Json]) -> Table:
    """Kinds of transfer, one row each.

    Args:
      results: from a kind's name to its run's result.
    """
    table = Table("", "accuracy", "loss", "steps", "training", title_justify="left")
    table.title = "Tried"
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
