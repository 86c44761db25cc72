"""The objective that a config asks for, and what it needs beside the model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from train import distillation, semi_supervised
from train.config import Config
from train.data import Source
from train.forgetting import head_of, without_forgetting
from train.objectives import Objective, supervised
from train.teacher import Teacher, teaching_pass
from train.transfer import Layers

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
    record: dict[str, Any],
    axis: str | None,
    unlabelled: Source | None,
    teacher: Teacher | None,
    layers: Layers | None,
    steps_per_epoch: int,
) -> Method:
    """Puts the objective together.

    Args:
      config: the run's.
      model: the model.
      record: what `config.json` says of the run.
      axis: the mapped axis that the batch is split over under `jax.pmap`, else None.
      unlabelled: the images without labels, where there are some.
      teacher: where there is one; the old model, for learning without forgetting.
      layers: the model's, where a flag of transfer needs them.
      steps_per_epoch: of the run.

    Raises:
      UserError: if model and teacher have no features to compare where they should.
    """
    options = {
        "label_smoothing": config.optimization.label_smoothing,
        "axis": axis,
        "freeze_bn": config.optimization.freeze_bn,
    }
    others, memory = config.unlabelled, None
    ramp_up_steps = round(others.ramp_up_epochs * steps_per_epoch)
    if config.transfer.transfer == "lwf" and teacher and layers:
        head, size = head_of(layers, teacher.variables), config.input.trained_size
        objective = without_forgetting(
            model,
            teacher.model,
            layers,
            (size, size, record["input"]["channels"]),
            weight=config.transfer.lwf_weight,
            temperature=config.transfer.lwf_temperature,
            **options,
        )
        return Method(objective, own=lambda key: {"old_head": head})
    if teacher is not None:
        return _from_teacher(config, model, record, teacher, ramp_up_steps, axis)
    if unlabelled is None:
        return Method(supervised(model, **options))
    known = list(unlabelled.class_names) == record["class_names"]
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
        ramp_up_steps=ramp_up_steps,
        **options,
    )
    return Method(objective, memory=memory)


def _from_teacher(
    config: Config,
    model: nn.Module,
    record: dict[str, Any],
    teacher: Teacher,
    ramp_up_steps: int,
    axis: str | None,
) -> Method:
    options, smoothing = config.distillation, config.optimization.label_smoothing
    inputs, features, own = record["input"], (), None
    match options.distillation:
        case "kd":
            lesson = distillation.kd(options.temperature, options.alpha, smoothing)
        case "dkd":
            weights = (options.dkd_alpha, options.dkd_beta)
            lesson = distillation.dkd(options.temperature, *weights, smoothing)
        case "hint":
            at, size = options.hint_at, config.input.trained_size
            lesson = distillation.hint(at, options.hint_weight, smoothing)
            features = (at,)
            own = distillation.regressor(model, teacher, at, size, inputs["channels"])
    objective = distillation.distilled(
        model,
        teaching_pass(teacher, inputs["mean"], inputs["std"], features),
        lesson,
        features=features,
        weight=config.unlabelled.unlabelled_weight,
        ramp_up_steps=ramp_up_steps,
        axis=axis,
        freeze_bn=config.optimization.freeze_bn,
    )
    return Method(objective, own)
