"""A run's metrics: averaged between log lines, timed, saved in `metrics.jsonl`."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from cnn_flax.weights.fields import wrong_field
from train.errors import NotFiniteError, UserError
from train.storage import replace_file

__all__ = ["Meter", "MetricsLog", "read_metrics"]

Json = dict[str, Any]

# Number of steps that the host may be ahead of the device: enough that the device never
# waits, few enough that batches do not pile up in its memory.
_AHEAD = 2


class Meter:
    """Collects each step's metrics without waiting for them.

    Attributes:
      seconds: training time so far, without evaluation and saving.
      images: number of images trained on in that time.
    """

    def __init__(self, batch_size: int, saved: Mapping[str, Any] | None = None) -> None:
        """Starts the clock.

        Args:
          batch_size: images per step.
          saved: what `settle` returned before, when a run is resumed.
        """
        saved = saved or {}
        self.seconds = saved.get("seconds", 0.0)
        self.images = saved.get("images", 0)
        self._sums = dict(saved.get("sums", {}))
        self._steps = saved.get("steps", 0)
        self._batch_size = batch_size
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self._at_last_line = (self.seconds, self.images)
        self._started = time.perf_counter()

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Adds a step's metrics, scalars on the device."""
        self._pending.append((step, metrics))
        if len(self._pending) > _AHEAD:
            jax.block_until_ready(self._pending[-1 - _AHEAD])

    def settle(self) -> dict[str, Any]:
        """Waits for the metrics of all steps, and stops the clock.

        Returns:
          The meter's state, as JSON.

        Raises:
          NotFiniteError: if a metric is NaN or infinite.
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
        """Restarts the clock after work that is not training."""
        self._started = time.perf_counter()

    def line(self) -> dict[str, float]:
        """The mean metrics and the images per second since the last call.

        Raises:
          NotFiniteError: if a metric is NaN or infinite.
        """
        self.settle()
        means = {name: value / self._steps for name, value in self._sums.items()}
        seconds, images = self._at_last_line
        speed = (self.images - images) / (self.seconds - seconds)
        self._sums, self._steps = {}, 0
        self._at_last_line = (self.seconds, self.images)
        return {**means, "images_per_second": speed}


class MetricsLog:
    """Appends to `metrics.jsonl`."""

    def __init__(self, run: Path, step: int) -> None:
        """Opens the log of a run that starts or is resumed at a step.

        Lines after that step are dropped, as they will be measured again.
        """
        path = run / "metrics.jsonl"
        lines = [line for line in read_metrics(run) if line["step"] <= step]
        replace_file(path, "".join(map(_as_text, lines)))
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends a line, which must have a `step`, and flushes it."""
        self._file.write(_as_text(line))
        self._file.flush()


def read_metrics(run: Path) -> list[Json]:
    """The lines of `metrics.jsonl`, without a truncated last line.

    Raises:
      UserError: if another line is damaged.
    """
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [
        _parsed(path, number, line)
        for number, line in enumerate(lines, 1)
        if line.endswith(b"\n")
    ]


def _parsed(path: Path, number: int, line: bytes) -> Json:
    try:
        tree = json.loads(line)
        wrong = wrong_field(tree, {"step": int}) or wrong_field(
            tree, {"epoch": float, "split": str}, whole=False
        )
    except (RecursionError, ValueError):
        wrong = "it is no JSON"
    if wrong:
        raise UserError(
            f"Line {number} of {path} is damaged: {wrong}. Remove the line."
        )
    return tree


def _as_text(line: Mapping[str, Any]) -> str:
    return json.dumps(line) + "\n"
