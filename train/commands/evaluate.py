"""`python -m train evaluate`: evaluates a run, or a model with weights."""

from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from tyro.conf import Positional

from train.api.evaluation import evaluate
from train.compilation_cache import use_compilation_cache

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Evaluates a run's last checkpoint, or a model with weights from elsewhere."""

    what: Positional[str]
    """Folder of a run, or a model, one of cnn_flax.list_models()."""
    data: str | None = None
    """Data source of the images; by default the run's."""
    split: Literal["train", "val", "test"] | None = None
    """Split of the data; by default that which the run evaluates on, or test."""
    weights: str | None = None
    """The model's weights: a file, a folder, or an id on the Hugging Face Hub; by
    default the first published ones."""
    batch_size: int | None = None
    """Images per step; by default the run's, or 64. It does not change the figures."""
    ema: bool = False
    """Evaluate the moving average of the weights of a run with --ema-decay."""
    old_head: bool = False
    """Evaluate the head of the old task, of a run with --transfer lwf; --data gives
    images of that task."""
    max_pixels: int = 0
    """Allow images of up to this many pixels, if that is more than Pillow's limit."""

    def __call__(self) -> None:
        """Runs the command."""
        use_compilation_cache()
        result = evaluate(
            self.what,
            self.data,
            self.split,
            weights=self.weights,
            batch_size=self.batch_size,
            ema=self.ema,
            old_head=self.old_head,
            max_pixels=self.max_pixels,
        )
        Console().print(result.table())
