"""What a benchmark is asked for on the command line."""

import dataclasses
from typing import Any

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

    def turns(self, blocks: int = 15, block_seconds: float = 1.0) -> dict[str, Any]:
        """Arguments of `benchmarks.timing.take_turns`, with defaults for long runs."""
        if self.quick:
            blocks, block_seconds = 2, 0.01
        return {
            "blocks": self.blocks or blocks,
            "block_seconds": self.block_seconds or block_seconds,
        }

    def chosen(self, candidates: dict) -> dict:
        """Those that are to be measured."""
        if self.candidates is None:
            return candidates
        return {k: v for k, v in candidates.items() if k in self.candidates}
