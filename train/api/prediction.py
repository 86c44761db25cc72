"""`train.predict`: classifies image files with a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from rich.table import Table

from train.api.prediction_formats import as_csv, as_json, most_probable
from train.api.result import Result
from train.console import literal, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from train.data import DecodeError

__all__ = ["PredictResult", "predict", "prediction_table"]


@dataclass(frozen=True, repr=False)
class PredictResult(Result):
    """The classes of images, in their order.

    `figures` are `images` and `unreadable`, their numbers.

    Attributes:
      images: n image files.
      probabilities: float32 `[n, K]`, NaN for an unreadable image.
      class_names: K names.
      unreadable: why an image cannot be read, by its file.
    """

    images: tuple[Path, ...]
    probabilities: np.ndarray
    class_names: Sequence[str]
    unreadable: Mapping[Path, str]

    @property
    def readable(self) -> list[int]:
        """The places of the images that could be read."""
        return [i for i, path in enumerate(self.images) if path not in self.unreadable]

    @property
    def classes(self) -> list[str | None]:
        """The most probable class of each image; None if it is unreadable."""
        best: list[str | None] = [None] * len(self.images)
        for i in self.readable:
            best[i] = self.class_names[int(self.probabilities[i].argmax())]
        return best

    def table(self, top: int = 5) -> Table:
        """The `top` most probable classes of each readable image."""
        return prediction_table(*self._predictions(), top)

    def as_json(self, top: int = 5) -> str:
        """The same as JSON: a list with one object per image."""
        return as_json(*self._predictions(), top)

    def as_csv(self, top: int = 5) -> str:
        """The same as rows of image, rank, class and probability, under a head."""
        return as_csv(*self._predictions(), top)

    def _predictions(self) -> tuple[list[Path], np.ndarray, Sequence[str]]:
        kept = self.readable
        paths = [self.images[i] for i in kept]
        return paths, self.probabilities[kept], self.class_names

    def plots(self) -> dict[str, Figure]:
        """`images`: the first readable images, with their classes."""
        from train.data import read_image
        from train.run.plots import predicted_images

        kept = self.readable
        if not kept:
            return {}
        return {
            "images": predicted_images(
                [self.images[i] for i in kept],
                self.probabilities[kept],
                self.class_names,
                read_image,
            )
        }


def predict(
    run: Path | str,
    images: Path | str | Sequence[Path | str],
    *,
    ema: bool = False,
    tta: Literal["none", "flip", "crops5", "policy"] = "none",
    max_pixels: int = 0,
    skip_unreadable: bool = False,
    advance: Callable[[], None] | None = None,
) -> PredictResult:
    """Classifies images with a run's last checkpoint: `python -m train predict`.

    If that was calibrated (`train.calibrate`), its temperature is used.

    Args:
      run: the run's folder.
      images: an image file of any size, a folder with images, a pattern such as
        `photos/*.jpg`, or several of these.
      ema: whether to use the moving average of the weights.
      tta: test-time augmentation, as in `evaluate`.
      max_pixels: allow images of up to this many pixels, if that is more than Pillow's
        limit.
      skip_unreadable: whether to go on after a file that cannot be read as an image,
        and list it in the result.
      advance: called after each file.

    Raises:
      UserError: if the folder holds no run, or the run has no moving average.
      DecodeError: if a file cannot be read as an image; names the file.
    """
    from cnn_flax.weights.preprocessing import allow_pixels
    from train.data.image_paths import image_paths
    from train.run.inference import predict_images

    allow_pixels(max_pixels)
    run = Path(run)
    named = [images] if isinstance(images, (Path, str)) else images
    paths = tuple(image_paths([Path(name) for name in named]))
    errors: list[DecodeError] = []
    probabilities, names = predict_images(
        run,
        paths,
        ema=ema,
        tta=tta,
        unreadable=errors.append if skip_unreadable else None,
        advance=advance,
    )
    by_name = {str(path): path for path in paths}
    unreadable = {by_name[error.name]: str(error) for error in errors}
    figures = {"images": len(paths), "unreadable": len(unreadable)}
    title = f"{len(paths):,} images by {run}"
    return PredictResult(title, figures, {}, paths, probabilities, names, unreadable)


def prediction_table(
    paths: Sequence[Path],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    top: int = 5,
) -> Table:
    """The most probable classes of each image.

    Args:
      paths: n image files.
      probabilities: float `[n, K]`.
      class_names: K names.
      top: number of classes per image.
    """
    table = Table("image", "class", "probability", title_justify="left")
    for path, row in zip(paths, probabilities, strict=True):
        for place, (k, probability) in enumerate(most_probable(row, top)):
            name = "" if place else literal(path)
            table.add_row(name, literal(class_names[k]), percent(probability))
        table.add_section()
    return table
