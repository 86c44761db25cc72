"""Learning without Forgetting: a new task, and the answers to the old one held.

Li and Hoiem 2016, https://arxiv.org/abs/1606.09282. A model that knows one task gets a
second head and learns another, without the old images: on the new ones, its old head is
held to what the model as it was says of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

from cnn_flax.losses import cross_entropy, distillation
from cnn_flax.weights import load_pretrained
from train.config import Network
from train.errors import UserError
from train.folder import read_record
from train.objectives import Objective, accuracy, training_pass
from train.teacher import Teacher
from train.transfer import Layers, head_logits

__all__ = [
    "beside_the_backbone",
    "head_of",
    "old_task",
    "open_old",
    "with_old_head",
    "without_forgetting",
]


def open_old(network: Network, record: dict[str, Any]) -> Teacher:
    """The model that `--init` names, with the head that it has.

    Args:
      network: the model, and the weights' source.
      record: what `config.json` says of the run.

    Raises:
      WeightsError: if the source is not there, or is of another model.
      UserError: if it has no head.
    """
    model, variables = load_pretrained(
        network.model,
        None if network.init == "published" else network.init,
        in_channels=record["input"]["channels"],
        **{**network.model_fields, "dtype": network.dtype},
    )
    if not getattr(model, "num_classes", 0):
        raise UserError(
            f"--transfer lwf holds the old head to its answers, and --init "
            f"{network.init} has none."
        )
    mean, std = (tuple(record["input"][name]) for name in ("mean", "std"))
    return Teacher(network.init, model, variables, mean, std)


def old_task(old: Teacher) -> dict[str, Any]:
    """What a run keeps of the old task: its number of classes; its names, if known."""
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
    label_smoothing: float = 0.0,
    axis: str | None = None,
    freeze_bn: bool = False,
) -> Objective:
    """Cross entropy with the new labels, and distillation from the old answers.

    `cross entropy + weight * T^2 * KL(p || q)`, p being the old model's answers to the
    image as it is augmented, and q the old head's, both softened by T: equations 1 to 4
    of the paper, whose modified cross entropy is the KL but for a constant; `T^2` makes
    up for the gradient's fall with the temperature.

    Args:
      model: the one that learns; gives logits `[N, K]`.
      old: the same with as many classes as it had.
      layers: of both.
      image_shape: (height, width, channels) of images that they take.
      weight: of the old answers.
      temperature: T.
      label_smoothing: share of each new label that is spread evenly, in [0, 1].
      axis: the mapped axis that the batch is split over under `jax.pmap`, else None.
      freeze_bn: whether BatchNorm uses its running statistics, and keeps them.

    Returns:
      The objective. The state's `teacher` is the old model's variables, and its
      parameters have `objective`: {"old_head": ...}. Its metrics are those of the new
      labels, `loss` and `accuracy`, and `old_loss`, without the weight.
    """
    run = training_pass(model, axis=axis, freeze_bn=freeze_bn, features=("pre_logits",))

    def objective(params, state, batch, key):
        key_new, key_old = jax.random.split(key)
        if axis is not None:
            key_old = jax.random.fold_in(key_old, jax.lax.axis_index(axis))
        images, labels = batch["image"], batch["label"]
        logits, batch_stats, found = run(params, state, images, key_new)
        loss = cross_entropy(logits, labels, label_smoothing)
        key_dropout, key_drop_path = jax.random.split(key_old)
        variables = state.replace(params=params).variables
        answers = head_logits(
            old,
            layers,
            with_old_head(variables, params["objective"]["old_head"]),
            found["pre_logits"],
            image_shape,
            train=True,
            rngs={"dropout": key_dropout, "drop_path": key_drop_path},
        )
        before: Any = old.apply(state.teacher, images)
        old_loss = distillation(answers, before, temperature=temperature)
        changes = {"batch_stats": batch_stats, "memory": state.memory}
        metrics = {
            "loss": loss,
            "accuracy": accuracy(logits, labels),
            "old_loss": old_loss,
        }
        return loss + weight * old_loss, (changes, metrics)

    return objective


def head_of(layers: Layers, variables: Any) -> Any:
    """The parameters of a model's head."""
    params = variables["params"]
    return {name: params[name] for name in layers.stages[-1] if name in params}


def with_old_head(variables: Any, head: Any) -> Any:
    """A model's variables with another head in the place of its own."""
    return {**variables, "params": {**variables["params"], **head}}


def beside_the_backbone(layers: Layers) -> Layers:
    """The layers, with the objective's own parameters in the last stage below the head.

    The old head is as old as the backbone: it learns at that rate, and as late.
    """
    *stages, last, head = layers.stages
    return replace(layers, stages=(*stages, (*last, "objective"), head))
