"""A run's model, restored from its last checkpoint that is whole."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnn_flax.registry import create_model
from cnn_flax.weights.runs import read_run
from train.config import Config
from train.config_file import config_from_json, load_record
from train.errors import UserError

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
    """Loads a run's last checkpoint, or, where it is damaged, the last whole one.

    The logger "cnn_flax" warns of damaged ones.

    Args:
      run: the run's folder.
      ema: whether to load the moving average of the weights.

    Raises:
      UserError: if the folder holds no run, or the run has no moving average.
      WeightsError: if the run has no checkpoint that can be read.
    """
    record = load_record(run, whole=True)
    config = config_from_json(record["config"])
    if ema and not config.optimization.ema_decay:
        raise UserError(f"{run} has no moving average: it was run without --ema-decay.")
    name = record["model"]["name"]
    saved = read_run(name, run, "ema" if ema else "model")
    variables = jax.tree.map(jnp.asarray, saved.variables)
    model = create_model(name, **saved.fields)
    return LoadedRun(record, config, model, variables, saved.step)
