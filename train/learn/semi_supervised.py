"""Learning from labelled and unlabelled images together.

Each step has N labelled and `ratio * N` unlabelled images. All views pass through the
model together and share the batch statistics. The unlabelled images contribute an
`UnlabelledLoss`: two are defined here, FixMatch and its variants in files of their own.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from cnn_flax.losses import cross_entropy
from train.learn.inputs import Prepare, train_inputs, two_streams, two_views
from train.learn.label_loss import LabelLoss
from train.learn.method import Method, Setup
from train.learn.objectives import (
    Objective,
    accuracy,
    auxiliary_loss,
    training_pass,
    weighted,
)
from train.learn.unlabelled_metrics import usage_metrics

__all__ = [
    "UnlabelledLoss",
    "confident_predictions",
    "given_labels",
    "interleave",
    "learn_classes",
    "ramp_up",
    "self_labels",
    "semi_supervised",
    "semi_supervised_method",
    "separate",
    "weak_and_strong_views",
    "with_given_labels",
    "with_self_labels",
]


class UnlabelledLoss(Protocol):
    """Chooses what a step's unlabelled images are to learn, as a pure function."""

    def __call__(
        self, views: list[jax.Array], batch: Any, method_state: Any
    ) -> tuple[Callable[[jax.Array], jax.Array], Any, dict[str, jax.Array]]:
        """Chooses the loss.

        Args:
          views: logits `[ratio * N, K]` of each view: `image`, then `strong` if the
            batch has it.
          batch: the prepared unlabelled images: `label`, `image_index` and the views.
          method_state: what the loss carries from step to step.

        Returns:
          The loss as a function of the last view's logits, of the model's head or of
          an auxiliary head: a mean over all unlabelled images. The new state. Metrics.
        """
        ...


def semi_supervised_method(
    setup: Setup, loss: UnlabelledLoss, views: Prepare, state: Any = None
) -> Method:
    """The semi-supervised method with this loss of the unlabelled images.

    Args:
      setup: what the method is built from.
      loss: the loss of the unlabelled images.
      views: preparation of the unlabelled images.
      state: the initial value of what the loss carries from step to step.
    """
    objective = semi_supervised(
        setup.model,
        loss,
        weight=setup.config.unlabelled.unlabelled_weight,
        ramp_up_steps=setup.ramp_up_steps,
        label_loss=setup.label_loss,
        **setup.pass_options,
    )
    prepare = two_streams(setup.labelled_inputs(), views)
    return Method(objective, prepare, state=state)


def weak_and_strong_views(setup: Setup) -> Prepare:
    """The views of FixMatch and its variants: see `train.learn.inputs.two_views`."""
    config = setup.config
    return two_views(config.augment, config.unlabelled, **setup.input_options)


def with_given_labels(setup: Setup) -> Method:
    """The method of `--pseudo-labels`: a file labels the unlabelled images."""
    return semi_supervised_method(setup, given_labels, setup.labelled_inputs())


def with_self_labels(setup: Setup) -> Method:
    """The method of `--consistency pseudo_label`."""
    loss = self_labels(setup.config.unlabelled.threshold, setup.knows_true_labels)
    # No mixing: there are no labels to mix before the forward pass.
    unmixed = dataclasses.replace(setup.config.augment, mixup=0, cutmix=0)
    return semi_supervised_method(
        setup, loss, train_inputs(unmixed, **setup.input_options)
    )


def semi_supervised(
    model: nn.Module,
    unlabelled_loss: UnlabelledLoss,
    *,
    weight: float = 1.0,
    ramp_up_steps: int = 0,
    label_loss: LabelLoss = cross_entropy,
    axis: str | None = None,
    freeze_bn: bool = False,
    remat: bool = False,
) -> Objective:
    """Cross entropy with the labels, plus the weighted loss of the unlabelled images.

    Args:
      model: a module that returns logits `[N, K]`.
      unlabelled_loss: loss of the unlabelled images.
      weight: weight of that loss.
      ramp_up_steps: steps over which the weight ramps up.
      label_loss: loss of the labels, a function of logits and labels.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
      freeze_bn: whether BatchNorm uses its running statistics and does not update them.
      remat: whether the backward pass computes the model's stages again.

    Returns:
      The objective. Its batch has `image`, `label`, and in `unlabelled` a batch of
      unlabelled images: `image` `[ratio * N, H, W, C]`, optionally a second view
      `strong`, and what the loss takes. Its metrics are `loss` and `accuracy` of the
      labelled images; `unlabelled_loss`, unweighted; and the metrics of that loss.
    """
    run = training_pass(model, axis=axis, freeze_bn=freeze_bn, remat=remat)

    def objective(params, state, batch, key):
        unlabelled = batch["unlabelled"]
        views = [unlabelled[view] for view in ("image", "strong") if view in unlabelled]
        images = interleave([batch["image"], *views])
        outputs = run(params, state, images, key)
        ratio = len(unlabelled["image"]) // len(batch["image"])
        counts = [1] + [ratio] * len(views)
        labelled, *views = separate(outputs.logits, counts)
        heads = [separate(logits, counts) for logits in outputs.auxiliary]

        loss_of = partial(label_loss, labels=batch["label"])
        unlabelled_loss_of, method_state, metrics = unlabelled_loss(
            views, unlabelled, state.method_state
        )
        loss, added = loss_of(labelled), unlabelled_loss_of(views[-1])
        metrics = {
            "loss": loss,
            "accuracy": accuracy(labelled, batch["label"]),
            "unlabelled_loss": added,
            **metrics,
        }
        updates = {"batch_stats": outputs.batch_stats, "method_state": method_state}
        loss += auxiliary_loss(loss_of, [head[0] for head in heads])
        added += auxiliary_loss(unlabelled_loss_of, [head[-1] for head in heads])
        ramp = ramp_up(state.step, ramp_up_steps)
        return loss + weighted(weight, ramp * added), (updates, metrics)

    return objective


def interleave(parts: list[jax.Array]) -> jax.Array:
    """Concatenates parts so that the rows of each of N images are consecutive.

    On many devices no row has to move, as the rows of a device stay together.

    Args:
      parts: arrays `[k * N, ...]`, each with its own k; the first has k = 1.
    """
    count = len(parts[0])
    groups = [part.reshape(count, -1, *part.shape[1:]) for part in parts]
    rows = jnp.concatenate(groups, axis=1)
    return rows.reshape(-1, *rows.shape[2:])


def separate(rows: jax.Array, counts: list[int]) -> list[jax.Array]:
    """The inverse of `interleave`.

    Args:
      rows: the concatenated rows, `[sum(counts) * N, ...]`.
      counts: k of each part.
    """
    groups = rows.reshape(-1, sum(counts), *rows.shape[1:])
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    parts = jnp.split(groups, ends[:-1], axis=1)
    return [part.reshape(-1, *rows.shape[1:]) for part in parts]


def ramp_up(step: jax.typing.ArrayLike, steps: int) -> jax.typing.ArrayLike:
    """`exp(-5 (1 - t)^2)` with t rising from 0 to 1 over `steps`, and 1 afterwards.

    Laine and Aila 2017, https://arxiv.org/abs/1610.02242, section 2.1.
    """
    if not steps:
        return 1.0
    left = 1 - jnp.minimum(step / steps, 1.0)
    return jnp.exp(-5 * left**2)


def given_labels(views: list[jax.Array], batch: Any, method_state: Any):
    """Cross entropy with the labels in the batch; an `UnlabelledLoss`."""
    (logits,), labels = views, batch["label"]
    metrics = {"unlabelled_accuracy": accuracy(logits, labels)}
    return partial(cross_entropy, labels=labels), method_state, metrics


def self_labels(threshold: float, known: bool = False) -> UnlabelledLoss:
    """The model's own confident predictions as labels.

    The most probable class is the label of the same view: Lee 2013,
    "Pseudo-label: the simple and efficient semi-supervised learning method for deep
    neural networks", equation 14, which has no threshold, and a weight that ramps up.

    Args:
      threshold: smallest confidence of a prediction that is learned from.
      known: whether `label` holds the true classes, for metrics.
    """

    def loss(views, batch, method_state):
        (logits,) = views
        classes, confident = confident_predictions(
            logits, jnp.full(logits.shape[1], threshold)
        )
        metrics = usage_metrics(classes, confident, batch, known)
        return learn_classes(classes, confident), method_state, metrics

    return loss


def confident_predictions(
    logits: jax.Array, thresholds: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Predicted classes, and whether their probabilities reach their thresholds.

    Args:
      logits: `[N, K]`; no gradient flows through them.
      thresholds: one per class, `[K]`.

    Returns:
      Classes int `[N]`, and booleans `[N]`.
    """
    logits = jax.lax.stop_gradient(logits)
    classes = logits.argmax(-1)
    return classes, jax.nn.softmax(logits).max(-1) >= thresholds[classes]


def learn_classes(
    classes: jax.Array, weights: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """The weighted cross entropy with these classes, as a function of logits `[N, K]`.

    It is a mean over all images; an image of weight 0 adds 0 even if its loss is
    infinite.

    Args:
      classes: int `[N]`, or probabilities `[N, K]`.
      weights: weights of the images, `[N]`, or a boolean mask.
    """

    def loss(logits):
        if classes.ndim == 1:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
        else:
            losses = optax.softmax_cross_entropy(logits, classes)
        return jnp.mean(jnp.where(weights == 0, 0, losses) * weights)

    return loss
