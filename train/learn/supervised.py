"""Supervised learning: cross entropy with the labels."""

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn

from cnn_flax.losses import cross_entropy
from train.learn.label_loss import LabelLoss
from train.learn.method import Method, Setup
from train.learn.objectives import (
    Objective,
    accuracy,
    auxiliary_loss,
    exact_matches,
    training_pass,
)

__all__ = ["make_method", "supervised"]


def make_method(setup: Setup) -> Method:
    """The default method."""
    objective = supervised(
        setup.model,
        label_loss=setup.label_loss,
        accuracy=exact_matches if setup.train.multi_label else accuracy,
        **setup.pass_options,
    )
    return Method(objective, setup.labelled_inputs())


def supervised(
    model: nn.Module,
    *,
    label_loss: LabelLoss = cross_entropy,
    accuracy: Callable[[jax.Array, jax.Array], jax.Array] = accuracy,
    axis: str | None = None,
    freeze_bn: bool = False,
    remat: bool = False,
) -> Objective:
    """Cross entropy with the labels, of auxiliary heads too.

    Args:
      model: a module that returns logits `[N, K]`.
      label_loss: loss of the labels, a function of logits and labels.
      accuracy: the metric, a function of logits and labels.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
      freeze_bn: whether BatchNorm uses its running statistics and does not update them.
      remat: whether the backward pass computes the model's stages again.

    Returns:
      The objective. Its batch has `image` float `[N, H, W, C]` and `label`, classes int
      `[N]`, or probabilities or several classes `[N, K]`; its metrics are `loss`, in
      nats, and `accuracy`.
    """
    run = training_pass(model, axis=axis, freeze_bn=freeze_bn, remat=remat)

    def objective(params, state, batch, key):
        labels = batch["label"]
        loss_of = partial(label_loss, labels=labels)
        outputs = run(params, state, batch["image"], key)
        loss = loss_of(outputs.logits)
        metrics = {"loss": loss, "accuracy": accuracy(outputs.logits, labels)}
        updates = {
            "batch_stats": outputs.batch_stats,
            "method_state": state.method_state,
        }
        return loss + auxiliary_loss(loss_of, outputs.auxiliary), (updates, metrics)

    return objective
