"""Learning without forgetting: a new task, with distillation of the old head.

Li and Hoiem 2016, "Learning without forgetting", https://arxiv.org/abs/1606.09282. A
trained model gets a second head for a new task. The old images are not needed: on the
new images, the old head is trained to reproduce the logits of the original model.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

from cnn_flax.losses import cross_entropy, distillation
from cnn_flax.weights import load_pretrained
from train.config_file import read_record
from train.errors import UserError
from train.learn.label_loss import LabelLoss
from train.learn.method import Method, Setup
from train.learn.objectives import (
    OBJECTIVE,
    Objective,
    accuracy,
    auxiliary_loss,
    training_pass,
    weighted,
)
from train.learn.teacher import Teacher
from train.learn.transfer import Layers, head_logits

__all__ = [
    "head_of",
    "make_method",
    "open_old_model",
    "with_old_head",
    "without_forgetting",
]


def open_old_model(setup: Setup) -> Teacher:
    """Opens the model that `--init` names, with its own head.

    Raises:
      WeightsError: if the weights do not exist, or are of another model.
      UserError: if they have no head.
    """
    network = setup.config.network
    model, variables = load_pretrained(
        network.model,
        network.init_source,
        in_channels=setup.channels,
        **{**network.model_fields, "dtype": network.dtype},
    )
    if not getattr(model, "num_classes", 0):
        raise UserError(
            f"--transfer lwf distills the old head, and --init {network.init} has none."
        )
    mean, std = tuple(setup.mean), tuple(setup.std)
    return Teacher(network.init, model, variables, mean, std)


def make_method(setup: Setup) -> Method:
    """The method of `--transfer lwf`."""
    assert setup.teacher is not None and setup.layers is not None
    config, old_head = setup.config, head_of(setup.layers, setup.teacher.variables)
    objective = without_forgetting(
        setup.model,
        setup.teacher.model,
        setup.layers,
        setup.image_shape,
        weight=config.transfer.lwf_weight,
        temperature=config.transfer.lwf_temperature,
        label_loss=setup.label_loss,
        **setup.pass_options,
    )
    return Method(
        objective,
        setup.labelled_inputs(),
        init_params=lambda key: {"old_head": old_head},
        layers=_with_old_head_in_backbone(setup.layers),
        record={"old_task": _old_task(setup.teacher)},
    )


def _old_task(old: Teacher) -> dict[str, Any]:
    """The old task's number of classes, and their names if known."""
    run = Path(old.spec)
    record = read_record(run) if (run / "config.json").exists() else None
    return {
        "num_classes": getattr(old.model, "num_classes", 0),
        "class_names": record and record["class_names"],
    }


def without_forgetting(
    model: nn.Module,
    old: nn.Module,
    layers: Layers,
    image_shape: Sequence[int],
    *,
    weight: float = 1.0,
    temperature: float = 2.0,
    label_loss: LabelLoss = cross_entropy,
    axis: str | None = None,
    freeze_bn: bool = False,
    remat: bool = False,
) -> Objective:
    """Cross entropy with the new labels, and distillation from the old model's logits.

    `cross entropy + weight * T^2 * KL(p || q)`, where p are the old model's
    probabilities for the augmented image and q those of the old head, both at
    temperature T: equations 1 to 4 of the paper, whose modified cross entropy equals
    the KL up to a constant; `T^2` keeps the gradient's scale independent of T.

    Args:
      model: the model that learns; returns logits `[N, K]`.
      old: the same module with the old number of classes.
      layers: the layers of both.
      image_shape: (height, width, channels) of the images.
      weight: weight of the distillation.
      temperature: T.
      label_loss: loss of the new labels, a function of logits and labels.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
      freeze_bn: whether BatchNorm uses its running statistics and does not update them.
      remat: whether the backward pass computes the model's stages again.

    Returns:
      The objective. The state's `teacher` holds the old model's variables, and
      `params[OBJECTIVE]` is `{"old_head": ...}`. Its metrics are `loss` and
      `accuracy` on the new labels, and `old_loss`, unweighted.
    """
    run = training_pass(
        model, axis=axis, freeze_bn=freeze_bn, remat=remat, features=("pre_logits",)
    )

    def objective(params, state, batch, key):
        key_new, key_old = jax.random.split(key)
        if axis is not None:
            key_old = jax.random.fold_in(key_old, jax.lax.axis_index(axis))
        images, labels = batch["image"], batch["label"]
        loss_of = partial(label_loss, labels=labels)
        outputs = run(params, state, images, key_new)
        loss = loss_of(outputs.logits)
        key_dropout, key_drop_path = jax.random.split(key_old)
        variables = state.replace(params=params).variables
        old_head_logits = head_logits(
            old,
            layers,
            with_old_head(variables, params[OBJECTIVE]["old_head"]),
            outputs.features["pre_logits"],
            image_shape,
            train=True,
            rngs={"dropout": key_dropout, "drop_path": key_drop_path},
        )
        targets: Any = old.apply(state.teacher, images)
        old_loss = distillation(old_head_logits, targets, temperature=temperature)
        updates = {
            "batch_stats": outputs.batch_stats,
            "method_state": state.method_state,
        }
        metrics = {
            "loss": loss,
            "accuracy": accuracy(outputs.logits, labels),
            "old_loss": old_loss,
        }
        total = loss + auxiliary_loss(loss_of, outputs.auxiliary)
        return total + weighted(weight, old_loss), (updates, metrics)

    return objective


def head_of(layers: Layers, variables: Any) -> Any:
    """The parameters of a model's head."""
    params = variables["params"]
    return {name: params[name] for name in layers.stages[-1] if name in params}


def with_old_head(variables: Any, head: Any) -> Any:
    """A model's variables with another head in place of its own."""
    return {**variables, "params": {**variables["params"], **head}}


def _with_old_head_in_backbone(layers: Layers) -> Layers:
    """The layers with the objective's own parameters in the last stage of the backbone.

    The old head is pretrained like the backbone: it has the same learning rate, and is
    unfrozen at the same time.
    """
    *stages, last, head = layers.stages
    return replace(layers, stages=(*stages, (*last, OBJECTIVE), head))
