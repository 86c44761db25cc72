"""`python -m train predict`: classifies image files with a run."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional, arg

from train.api.prediction import predict
from train.compilation_cache import use_compilation_cache
from train.console import program_name
from train.errors import UserError

__all__ = ["Predict"]


@dataclass(frozen=True)
class Predict:
    """Classifies images with a run's last checkpoint."""

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """Folder of the run."""
    images: Positional[Annotated[tuple[Path, ...], arg(metavar="IMAGE ...")]]
    """Image files, folders with images, or patterns such as 'photos/*.jpg'."""
    top: int = 5
    """Number of classes per image."""
    json: FlagCreatePairsOff[bool] = False
    """Print JSON instead of a table."""
    csv: FlagCreatePairsOff[bool] = False
    """Print comma-separated values instead of a table."""
    ema: bool = False
    """Use the moving average of the weights of a run with --ema-decay."""
    tta: Literal["none", "flip", "crops5", "policy"] = "none"
    """Test-time augmentation, as in evaluate: flip, crops5 or policy."""
    max_pixels: int = 0
    """Allow images of up to this many pixels, if that is more than Pillow's limit."""

    def __call__(self) -> None:
        """Runs the command."""
        if not self.images:
            raise UserError(
                f"No image was given: {program_name()} predict RUN IMAGE ..."
            )
        if self.top < 1:
            raise UserError(f"--top must be at least 1, got {self.top}.")
        if self.json and self.csv:
            raise UserError("Give one of --json and --csv.")
        if not self.run.exists():
            self._check_is_no_model()
        use_compilation_cache()
        from cnn_flax.progress import counting
        from train.data.image_paths import image_paths

        images = image_paths(self.images)
        with counting(len(images), "images") as advance:
            result = predict(
                self.run,
                images,
                ema=self.ema,
                tta=self.tta,
                max_pixels=self.max_pixels,
                skip_unreadable=True,
                advance=advance,
            )
        if result.readable and self.json:
            print(result.as_json(self.top))
        elif result.readable and self.csv:
            print(result.as_csv(self.top))
        elif result.readable:
            Console().print(result.table(self.top))
        if result.unreadable:
            raise UserError("\n".join(result.unreadable.values()))

    def _check_is_no_model(self) -> None:
        """Raises `UserError` if the name in place of the run is that of a model."""
        from cnn_flax import list_models

        if (name := str(self.run)) in list_models():
            images = shlex.join(map(str, self.images))
            raise UserError(
                f"{name} is a model, and no folder of a run. With its published "
                f"weights: cnn-flax predict {name} {images}"
            )
