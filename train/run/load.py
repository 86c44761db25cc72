"""A run's model, restored from its last checkpoint."""

from pathlib import Path
from typing import Any, NamedTuple

from flax import linen as nn

from cnn_flax.weights import load_pretrained
from train.config import Config
from train.config_file import config_from_json, load_record
from train.errors import UserError
from train.run.checkpoint import Checkpoints

__all__ = ["LoadedRun", "load_run"]


class LoadedRun(NamedTuple):
    """A run's model and what is needed to apply it.

    Attributes:
      record: the contents of its `config.json`.
      config: the run's config.
      model: the model.
      variables: the model's variables, from the last checkpoint.
      step: the step of that checkpoint.
    """

    record: dict[str, Any]
    config: Config
    model: nn.Module
    variables: Any
    step: int


def load_run(run: Path, *, ema: bool = False) -> LoadedRun:
    """Loads a run's last checkpoint.

    Args:
      run: the run's folder.
      ema: whether to load the moving average of the weights.

    Raises:
      UserError: if the folder holds no run, or the run has no moving average.
      WeightsError: if the run has no checkpoint.
    """
    record = load_record(run)
    config = config_from_json(record["config"])
    model, variables = load_pretrained(record["model"]["name"], run)
    if ema and not config.optimization.ema_decay:
        raise UserError(f"{run} has no moving average: it was run without --ema-decay.")
    with Checkpoints(run) as checkpoints:
        if ema:
            variables = checkpoints.restore_ema(variables)
        step = checkpoints.latest or 0
    return LoadedRun(record, config, model, variables, step)
