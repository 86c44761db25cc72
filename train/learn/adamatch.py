"""AdaMatch: FixMatch with a threshold and a class balance that the labelled images set.

Berthelot et al. 2022, "AdaMatch: a unified approach to semi-supervised learning and
domain adaptation", https://arxiv.org/abs/2106.04732, section 3.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from cnn_flax.losses import cross_entropy
from train.learn.alignment import align
from train.learn.inputs import Prepare, two_streams
from train.learn.label_loss import LabelLoss
from train.learn.method import Method, Setup
from train.learn.objectives import (
    Objective,
    accuracy,
    auxiliary_loss,
    training_pass,
    weighted,
)
from train.learn.semi_supervised import (
    interleave,
    learn_classes,
    separate,
    weak_and_strong_views,
)
from train.learn.unlabelled_metrics import threshold_metrics, usage_metrics

__all__ = ["AdaMatchState", "adamatch", "initial_state", "make_method", "warm_up"]


class AdaMatchState(NamedTuple):
    """Exponential moving averages of the weak views' predictions.

    Attributes:
      labelled: mean probability of each class for the labelled images, `[K]`.
      unlabelled: the same for the unlabelled images, `[K]`.
    """

    labelled: jax.typing.ArrayLike
    unlabelled: jax.typing.ArrayLike


def make_method(setup: Setup) -> Method:
    """The method of `--consistency adamatch`."""
    options, num_classes = setup.config.unlabelled, len(setup.train.class_names)
    objective = adamatch(
        setup.model,
        threshold=options.threshold,
        momentum=options.adamatch_momentum,
        weight=options.unlabelled_weight,
        steps=setup.steps,
        known=setup.knows_true_labels,
        label_loss=setup.label_loss,
        **setup.pass_options,
    )
    views = weak_and_strong_views(setup)
    prepare = two_streams(_with_share(views, num_classes), views)
    return Method(objective, prepare, state=initial_state(num_classes))


def initial_state(num_classes: int) -> AdaMatchState:
    """The state before the first step: 1 / K everywhere.

    It is float32, or float64 under `JAX_ENABLE_X64`.
    """
    uniform = np.full(num_classes, 1 / num_classes, jnp.result_type(float))
    return AdaMatchState(uniform, uniform)


def warm_up(step: jax.typing.ArrayLike, steps: int) -> jax.Array:
    """mu: rises from 0 to 1 over the first half of the steps, along a cosine."""
    return 0.5 - jnp.cos(jnp.minimum(math.pi, 2 * math.pi * step / steps)) / 2


def adamatch(
    model: nn.Module,
    *,
    threshold: float = 0.9,
    momentum: float = 0.999,
    weight: float = 1.0,
    steps: int = 1,
    known: bool = False,
    label_loss: LabelLoss = cross_entropy,
    axis: str | None = None,
    freeze_bn: bool = False,
    remat: bool = False,
) -> Objective:
    """The loss of the labelled images, plus mu times that of the unlabelled ones.

    The labelled images have a weak and a strong view too. All views pass through the
    model together, and those of the labelled images once more alone; both passes are
    in training mode and start from the same running statistics, and those of the joint
    pass are kept. Random logit interpolation: a labelled view's logits are `share`
    times those of the joint pass plus `1 - share` times those of the pass alone. The
    labels' loss is the sum of both views' cross entropies.

    The target of an unlabelled image is the prediction for its weak view, aligned to
    the labelled images: times the moving average of their weak views' predictions, over
    that of the unlabelled ones, normalised. The strong view learns it if its
    largest probability reaches `threshold` times the mean confidence of the batch's
    labelled weak views. Targets and mask have no gradient.

    The authors' code differs: it has half of the labels' loss, the target's largest
    class in place of the target, and the mean over 128 steps of the unlabelled images'
    predictions in place of their moving average.

    Args:
      model: a module that returns logits `[N, K]`.
      threshold: tau, relative to the mean confidence, in [0, 1].
      momentum: decay of the moving averages, in [0, 1).
      weight: weight of the unlabelled images' loss after the warm-up.
      steps: T, number of steps of the run.
      known: whether unlabelled `label`s hold the true classes, for metrics.
      label_loss: loss of the labels, a function of logits and labels.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
      freeze_bn: see `train.learn.objectives.training_pass`.
      remat: see there.

    Returns:
      The objective. Its batch has `image` and `strong` `[N, H, W, C]`, `label`, `share`
      `[N, 2, K]` in [0, 1], and in `unlabelled` a batch of `image` and `strong`
      `[ratio * N, H, W, C]`. Its metric `loss` is the mean of both labelled views'.
    """
    run = training_pass(model, axis=axis, freeze_bn=freeze_bn, remat=remat)

    def mean(rows):
        mean = jnp.mean(rows, axis=0)
        return mean if axis is None else jax.lax.pmean(mean, axis)

    def objective(params, state, batch, key):
        key_joint, key_alone = jax.random.split(key)
        labels, unlabelled = batch["label"], batch["unlabelled"]
        own, others = ([rows["image"], rows["strong"]] for rows in (batch, unlabelled))
        joint = run(params, state, interleave([*own, *others]), key_joint)
        alone = run(params, state, interleave(own), key_alone)
        passes = ([x.logits, *x.auxiliary] for x in (joint, alone))
        mixed = partial(_interpolated, batch["share"], len(others[0]) // len(own[0]))
        heads = list(map(mixed, *passes))
        labelled, _, weak, _ = jax.lax.stop_gradient(heads[0])
        predicted = jax.nn.softmax(labelled)
        statistics = AdaMatchState(mean(predicted), mean(jax.nn.softmax(weak)))
        averages: Any = optax.incremental_update(
            statistics, state.method_state, 1 - momentum
        )
        target = align(weak, averages.unlabelled, averages.labelled)
        lowest = threshold * mean(predicted.max(-1))
        used = target.max(-1) >= lowest

        def loss_of(head):
            return label_loss(head[0], labels) + label_loss(head[1], labels)

        learn = learn_classes(target, used)
        loss, added = loss_of(heads[0]), learn(heads[0][-1])
        metrics = {
            "loss": loss / 2,
            "accuracy": accuracy(labelled, labels),
            "unlabelled_loss": added,
            **usage_metrics(target.argmax(-1), used, unlabelled, known),
            **threshold_metrics(lowest),
        }
        updates = {"batch_stats": joint.batch_stats, "method_state": averages}
        loss += auxiliary_loss(loss_of, heads[1:])
        added += auxiliary_loss(learn, [head[-1] for head in heads[1:]])
        added *= warm_up(state.step, steps)
        return loss + weighted(weight, added), (updates, metrics)

    return objective


def _with_share(views: Prepare, num_classes: int) -> Prepare:
    """Adds the random weights of the interpolation, one per view and logit."""

    def prepare(keys, batch, key):
        key_views, key_share = jax.vmap(jax.random.split)(keys).T
        uniform = partial(jax.random.uniform, shape=(2, num_classes))
        return {**views(key_views, batch, key), "share": jax.vmap(uniform)(key_share)}

    return prepare


def _interpolated(
    share: jax.Array, ratio: int, joint: jax.Array, alone: jax.Array
) -> list[jax.Array]:
    """Logits of the labelled views, interpolated, and of the unlabelled views."""
    *own, weak, strong = separate(joint, [1, 1, ratio, ratio])
    shares = share.swapaxes(0, 1)
    views = zip(own, separate(alone, [1, 1]), shares, strict=True)
    return [*(s * a + (1 - s) * b for a, b, s in views), weak, strong]
