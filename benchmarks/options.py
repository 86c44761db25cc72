"""What a benchmark is asked for on the command line."""

import dataclasses
from typing import Any

from cnn_flax.registry import nearest
from train.errors import UserError

__all__ = ["Options"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Fields that are None are the benchmark's to choose.

    Attributes:
      quick: whether to show only that it works, in seconds: its figures mean nothing.
      models: names of the registry; "all" alone: those with published accuracy.
      candidates: which of a benchmark's candidates to measure.
      batch_size: images a step.
      image_size: height and width, in pixels.
      dtype: "float32" or "bfloat16", of the computation.
      blocks: how often each candidate gets its turn.
      block_seconds: about how long a turn lasts.
    """

    quick: bool = False
    models: tuple[str, ...] | None = None
    candidates: tuple[str, ...] | None = None
    batch_size: int | None = None
    image_size: int | None = None
    dtype: str = "float32"
    blocks: int | None = None
    block_seconds: float | None = None

    def turns(
        self, blocks: int = 15, block_seconds: float = 1.0, pause: float = 0.0
    ) -> dict[str, Any]:
        """Arguments of `benchmarks.timing.take_turns`, with defaults for long runs."""
        if self.quick:
            blocks, block_seconds, pause = 2, 0.01, 0.0
        return {
            "blocks": self.blocks or blocks,
            "block_seconds": self.block_seconds or block_seconds,
            "pause": pause,
        }

    def chosen(self, candidates: dict[str, Any]) -> dict[str, Any]:
        """Those of a benchmark's candidates that are to be measured.

        Raises:
          UserError: there is none of that name.
        """
        for name in self.candidates or ():
            if name not in candidates:
                raise UserError(
                    f"There is no candidate {name!r}. {nearest(name, candidates)} "
                    f"There are: {', '.join(candidates)}."
                )
        return {name: candidates[name] for name in self.candidates or candidates}
