"""`python -m train predict`: classifies image files with a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from train.compilation_cache import use_compilation_cache
from train.console import literal, percent
from train.errors import UserError

__all__ = ["Predict", "prediction_table"]


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
        from cnn_flax.weights.preprocessing import allow_pixels
        from train.data import DecodeError
        from train.run.inference import predict_images

        allow_pixels(self.max_pixels)
        errors: list[DecodeError] = []
        probabilities, names = predict_images(
            self.run, self.images, ema=self.ema, unreadable=errors.append
        )
        unreadable = {error.name for error in errors}
        kept = [i for i, p in enumerate(self.images) if str(p) not in unreadable]
        if kept:
            paths = [self.images[i] for i in kept]
            Console().print(prediction_table(paths, probabilities[kept], names))
        if errors:
            raise UserError("\n".join(map(str, errors)))


def prediction_table(
    paths: Sequence[Path], probabilities: np.ndarray, class_names: Sequence[str]
) -> Table:
    """The most probable classes of each image, up to five.

    Args:
      paths: n image files.
      probabilities: float `[n, K]`.
      class_names: K names.
    """
    table = Table("image", "class", "probability", title_justify="left")
    for path, row in zip(paths, probabilities, strict=True):
        for place, k in enumerate(np.argsort(-row, kind="stable")[:5]):
            name = "" if place else literal(path)
            table.add_row(name, literal(class_names[int(k)]), percent(row[k]))
        table.add_section()
    return table
