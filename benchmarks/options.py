"""Options of the command line for all benchmarks."""

import dataclasses
from pathlib import Path
from typing import Any

from cnn_flax.registry import nearest
from train.errors import UserError

__all__ = ["Options"]


@dataclasses.dataclass(frozen=True)
class Options:
    """If a field is None, the benchmark has its own default.

    Attributes:
      quick: whether to check only that the benchmark works, in seconds: the figures
        mean nothing.
      models: names in the registry, or "all" for those with published accuracy.
      candidates: the candidates to measure.
      batch_size: images per step.
      image_size: height and width, in pixels.
      dtype: "float32" or "bfloat16", of the computation.
      blocks: number of turns per candidate.
      block_seconds: approximate duration of a turn.
      warm_start: whether to start each model a second time, with the programs that
        the first start compiled. Otherwise it starts once, with the caches that the
        environment names, if any.
      limits: whether to measure the device's peak rates too.
      profiles: folder for profiles of ours; None for none.
    """

    quick: bool = False
    models: tuple[str, ...] | None = None
    candidates: tuple[str, ...] | None = None
    batch_size: int | None = None
    image_size: int | None = None
    dtype: str = "float32"
    blocks: int | None = None
    block_seconds: float | None = None
    warm_start: bool = True
    limits: bool = True
    profiles: Path | None = None

    def turns(
        self, blocks: int = 15, block_seconds: float = 1.0, pause: float = 0.0
    ) -> dict[str, Any]:
        """Returns arguments of `benchmarks.timing.take_turns`, with these defaults."""
        if self.quick:
            blocks, block_seconds, pause = 2, 0.01, 0.0
        return {
            "blocks": self.blocks or blocks,
            "block_seconds": self.block_seconds or block_seconds,
            "pause": pause,
        }

    def select(self, candidates: dict[str, Any]) -> dict[str, Any]:
        """Returns the candidates to measure.

        Raises:
          UserError: a candidate does not exist.
        """
        for name in self.candidates or ():
            if name not in candidates:
                raise UserError(
                    f"There is no candidate {name!r}. {nearest(name, candidates)} "
                    f"There are: {', '.join(candidates)}."
                )
        return {name: candidates[name] for name in self.candidates or candidates}
