"""`python -m train predict`: classifies image files with a run."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from train.api.prediction import predict
from train.compilation_cache import use_compilation_cache
from train.errors import UserError

__all__ = ["Predict"]


@dataclass(frozen=True)
class Predict:
    """Classifies images with a run's last checkpoint."""

    run: Positional[Path]
    """Folder of the run."""
    images: Positional[tuple[Path, ...]]
    """Image files."""
    ema: bool = False
    """Use the moving average of the weights of a run with --ema-decay."""
    max_pixels: int = 0
    """Allow images of up to this many pixels, if that is more than Pillow's limit."""

    def __call__(self) -> None:
        """Runs the command."""
        if not self.images:
            raise UserError("No image was given: python -m train predict DIR IMAGE ...")
        use_compilation_cache()
        result = predict(
            self.run,
            self.images,
            ema=self.ema,
            max_pixels=self.max_pixels,
            skip_unreadable=True,
        )
        if result.readable:
            Console().print(result.table())
        if result.unreadable:
            raise UserError("\n".join(result.unreadable.values()))
