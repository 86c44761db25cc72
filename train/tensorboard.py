"""The metrics of a run for TensorBoard, in `RUN/tensorboard`."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.errors import UserError
from train.folder import MetricsLog

__all__ = ["TensorBoardLog", "check_installed"]


def check_installed() -> None:
    """Raises `UserError` where tensorboardX is missing."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "--tensorboard needs an extra: pip install 'cnn-flax[tensorboard]'"
        )


class TensorBoardLog(MetricsLog):
    """Appends to `metrics.jsonl`, and beside it for TensorBoard."""

    def __init__(self, run: Path, step: int) -> None:
        """Opens the logs of a run that goes on from a step."""
        from tensorboardX import SummaryWriter

        super().__init__(run, step)
        # TensorBoard then forgets what a start before this one wrote after `step`.
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._writer.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line; each figure of it is a curve called `NAME/SPLIT`."""
        super().write(line)
        for name, value in line.items():
            if name not in ("step", "split"):
                self._writer.add_scalar(f"{name}/{line['split']}", value, line["step"])
        self._writer.flush()
