"""The objective that a config asks for, and what it needs beside the model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from train import semi_supervised
from train.config import Config
from train.data import Source
from train.objectives import Objective, supervised

__all__ = ["Method", "make_method"]


@dataclass(frozen=True)
class Method:
    """How a run learns.

    Attributes:
      objective: one of `train.objectives`.
      own: draws the objective's own parameters, of a key; None where it has none.
      memory: what it keeps from step to step, before the first; None where nothing.
    """

    objective: Objective
    own: Callable[[jax.Array], Any] | None = None
    memory: Any = None


def make_method(
    config: Config,
    model: nn.Module,
    *,
    axis: str | None,
    unlabelled: Source | None,
    steps_per_epoch: int,
    class_names: tuple[str, ...],
) -> Method:
    """Puts the objective together.

    Args:
      config: the run's.
      model: the model.
      axis: the mapped axis that the batch is split over under `jax.pmap`, else None.
      unlabelled: the images without labels, where there are some.
      steps_per_epoch: of the run.
      class_names: of the labelled images.
    """
    options = {
        "label_smoothing": config.optimization.label_smoothing,
        "axis": axis,
        "freeze_bn": config.optimization.freeze_bn,
    }
    if unlabelled is None:
        return Method(supervised(model, **options))
    others, memory = config.unlabelled, None
    known = unlabelled.class_names == class_names
    match others.consistency:
        case "none":
            loss = semi_supervised.label_loss
        case "pseudo_label":
            loss = semi_supervised.pseudo_label(others.threshold, known)
        case "fixmatch":
            loss = semi_supervised.fixmatch(others.threshold, known)
        case "flexmatch":
            loss = semi_supervised.flexmatch(others.threshold, known, axis)
            memory = np.full(len(unlabelled), -1, np.int32)
    objective = semi_supervised.semi_supervised(
        model,
        loss,
        weight=others.unlabelled_weight,
        ramp_up_steps=round(others.ramp_up_epochs * steps_per_epoch),
        **options,
    )
    return Method(objective, memory=memory)
