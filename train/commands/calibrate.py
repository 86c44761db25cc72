"""`python -m train calibrate`: fits the temperature of a run's probabilities."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from train.api.calibration import calibrate
from train.compilation_cache import use_compilation_cache

__all__ = ["Calibrate"]


@dataclass(frozen=True)
class Calibrate:
    """Fits the temperature of a run's probabilities, which `predict` then uses."""

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    """Folder of the run."""
    data: str | None = None
    """Data source of the images; by default the run's."""
    split: Literal["train", "val", "test"] = "val"
    """Split of the data: images that the model has not learned and is not judged by."""
    batch_size: int | None = None
    """Images per step; by default the run's."""

    def __call__(self) -> None:
        """Runs the command."""
        use_compilation_cache()
        result = calibrate(self.run, self.data, self.split, batch_size=self.batch_size)
        Console().print(result.table())
