"""A run's metrics for TensorBoard, in `RUN/tensorboard`."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn_flax.installing import install_command
from train.errors import UserError
from train.run.metrics import MetricsLog

__all__ = ["TensorBoardLog", "check_installed"]


def check_installed() -> None:
    """Raises `UserError` if tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            f"--tensorboard needs an extra: {install_command('tensorboard')}"
        )


class TensorBoardLog(MetricsLog):
    """Appends to `metrics.jsonl` and to TensorBoard's event files."""

    def __init__(self, run: Path, step: int) -> None:
        """Opens the logs of a run that starts or is resumed at a step."""
        from tensorboardX import SummaryWriter

        super().__init__(run, step)
        # TensorBoard drops what was written after `step` before the run was resumed.
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._writer.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends a line; each of its figures is a point of a curve `NAME/SPLIT`."""
        super().write(line)
        for name, value in line.items():
            if name not in ("step", "split"):
                self._writer.add_scalar(f"{name}/{line['split']}", value, line["step"])
        self._writer.flush()
