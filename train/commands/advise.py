"""`python -m train advise`: recommends how to transfer weights to a data set."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from train.api.advising import advise, trial_table
from train.compilation_cache import use_compilation_cache
from train.console import say

__all__ = ["Advise"]


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
    max_pixels: int = 0
    """Allow images of up to this many pixels, if that is more than Pillow's limit."""
    max_unpacked_bytes: int = 0
    """Allow the arrays of a compressed npz or idx file to have up to this many bytes,
    if that is more than 64 MiB and 32 times its size."""

    def __call__(self) -> None:
        """Runs the command."""
        use_compilation_cache()
        result = advise(
            self.data,
            self.init,
            model=self.model,
            image_size=self.image_size,
            images=self.images,
            seed=self.seed,
            max_pixels=self.max_pixels,
            max_unpacked_bytes=self.max_unpacked_bytes,
        )
        console = Console()
        console.print(result.table())
        say(console, f"To run it:\n{result.command}")
        if self.try_both:
            console.print(trial_table(result.try_both(self.out, steps=self.steps)))
