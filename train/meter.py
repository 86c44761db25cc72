"""Means of the metrics between two lines of the log, and the speed."""

import math
import time
from collections.abc import Mapping
from typing import Any

import jax

from train.errors import NotFiniteError

__all__ = ["Meter"]

# The host may be so many steps ahead of the device: enough that the device never waits,
# few enough that batches do not pile up in its memory.
_AHEAD = 2


class Meter:
    """Gathers each step's metrics without waiting for them.

    Attributes:
      seconds: time that training took so far, without evaluating and saving.
      images: number of images trained on in that time.
    """

    def __init__(self, batch_size: int, saved: Mapping[str, Any] | None = None) -> None:
        """Starts the clock.

        Args:
          batch_size: images a step.
          saved: what `settle` returned, for a run that goes on.
        """
        saved = saved or {}
        self.seconds = saved.get("seconds", 0.0)
        self.images = saved.get("images", 0)
        self._sums = dict(saved.get("sums", {}))
        self._steps = saved.get("steps", 0)
        self._batch_size = batch_size
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self._line = (self.seconds, self.images)  # When the last line was written.
        self._started = time.perf_counter()

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes a step's metrics, scalars on the device."""
        self._pending.append((step, metrics))
        if len(self._pending) > _AHEAD:
            jax.block_until_ready(self._pending[-1 - _AHEAD])

    def settle(self) -> dict[str, Any]:
        """Waits for the metrics of all steps, and stops the clock.

        Returns:
          All that the meter knows, as JSON holds it.

        Raises:
          NotFiniteError: if one of them is NaN or infinite.
        """
        for step, metrics in jax.device_get(self._pending):
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise NotFiniteError(step, name, float(value))
                self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._steps += len(self._pending)
        self.images += len(self._pending) * self._batch_size
        self._pending = []
        self.seconds += time.perf_counter() - self._started
        self._started = time.perf_counter()
        return {
            "seconds": self.seconds,
            "images": self.images,
            "sums": self._sums,
            "steps": self._steps,
        }

    def start(self) -> None:
        """Starts the clock again, after what is not training."""
        self._started = time.perf_counter()

    def line(self) -> dict[str, float]:
        """The means and the images a second since the last call; begins anew.

        Raises:
          NotFiniteError: as `settle`.
        """
        self.settle()
        means = {name: value / self._steps for name, value in self._sums.items()}
        seconds, images = self.seconds - self._line[0], self.images - self._line[1]
        self._sums, self._steps = {}, 0
        self._line = (self.seconds, self.images)
        return {**means, "images_per_second": images / seconds}
