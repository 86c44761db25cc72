"""ABC: FixMatch on uneven classes, with a classifier that sees them balanced.

Lee, Shin and Kim 2021, "ABC: auxiliary balanced classifier for class-imbalanced
semi-supervised learning", https://arxiv.org/abs/2110.10368.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnn_flax.losses import cross_entropy
from train.learn.forgetting import head_of, with_old_head
from train.learn.inputs import Prepare, two_streams
from train.learn.label_loss import LabelLoss, class_counts, keep_rates
from train.learn.method import Method, Setup
from train.learn.objectives import (
    OBJECTIVE,
    Objective,
    accuracy,
    auxiliary_loss,
    training_pass,
    weighted,
)
from train.learn.semi_supervised import (
    confident_predictions,
    interleave,
    learn_classes,
    ramp_up,
    separate,
    weak_and_strong_views,
)
from train.learn.transfer import Layers, find_layers, head_logits
from train.learn.unlabelled_metrics import usage_metrics

__all__ = ["balanced_classifier", "make_method"]


def make_method(setup: Setup) -> Method:
    """The method of `--consistency fixmatch --abc`."""
    options, model = setup.config.unlabelled, setup.model
    if getattr(model, "bn_axis_name", None):  # Not bound outside the step.
        model = model.clone(bn_axis_name=None)
    layers = find_layers(model, setup.image_shape)
    objective = balanced_classifier(
        setup.model,
        layers,
        setup.image_shape,
        class_counts(setup.train),
        threshold=options.threshold,
        weight=options.unlabelled_weight,
        ramp_up_steps=setup.ramp_up_steps,
        steps=setup.steps,
        known=setup.knows_true_labels,
        label_loss=setup.label_loss,
        **setup.pass_options,
    )

    def init_params(key):
        variables = model.init(key, jnp.zeros((1, *setup.image_shape)))
        return {"head": head_of(layers, variables)}

    views = _with_draw(_with_second(weak_and_strong_views(setup)))
    prepare = two_streams(_with_draw(setup.labelled_inputs()), views)
    return Method(objective, prepare, init_params)


def balanced_classifier(
    model: nn.Module,
    layers: Layers,
    image_shape: Sequence[int],
    counts: np.ndarray,
    *,
    threshold: float = 0.95,
    weight: float = 1.0,
    ramp_up_steps: int = 0,
    steps: int = 1,
    known: bool = False,
    label_loss: LabelLoss = cross_entropy,
    axis: str | None = None,
    freeze_bn: bool = False,
    remat: bool = False,
) -> Objective:
    """FixMatch of one head, plus the losses of a second head on the same features.

    The second is the model's own, with which it predicts; the first is left behind. The
    model's head learns a part of the images: a labelled one with the probability
    `keep_rates` of its class, so that it sees all classes equally often (L_cls), an
    unlabelled one with that of its predicted class, which falls linearly from 1 over
    the run (L_con). There it learns its own soft prediction for the weak view, if that
    is confident, on two strong views; FixMatch has the mean of both, as in the authors'
    code. The features learn from both heads.

    Args:
      model: a module that returns logits `[N, K]`.
      layers: the model's layers.
      image_shape: (height, width, channels) of the images.
      counts: number of labelled images of each class, `[K]`.
      threshold: tau, the smallest confidence of a prediction that is learned from.
      weight: weight of FixMatch's loss of the unlabelled images.
      ramp_up_steps: steps over which that weight ramps up.
      steps: number of steps of the run.
      known: whether unlabelled `label`s hold the true classes, for metrics.
      label_loss: the first head's loss of the labels, a function of logits and labels.
      axis: see `train.learn.objectives.training_pass`.
      freeze_bn: see there.
      remat: see there.

    Returns:
      The objective. Its batch has `image`, `label`, `draw` `[N]`, uniform in [0, 1),
      and in `unlabelled` `image`, `strong`, `second` and `draw`. `params[OBJECTIVE]` is
      `{"head": ...}`. Metrics are the model's head's, `balanced_loss` is L_cls + L_con.
    """
    run = training_pass(
        model, axis=axis, freeze_bn=freeze_bn, remat=remat, features=("pre_logits",)
    )
    rates = jnp.asarray(keep_rates(counts))

    def objective(params, state, batch, key):
        key, *keys = jax.random.split(key, 3)
        if axis is not None:
            device = jax.lax.axis_index(axis)
            keys = [jax.random.fold_in(key, device) for key in keys]
        labels, unlabelled = batch["label"], batch["unlabelled"]
        views = [unlabelled[name] for name in ("image", "strong", "second")]
        outputs = run(params, state, interleave([batch["image"], *views]), key)
        variables = state.replace(params=params).variables
        first_logits = head_logits(
            model,
            layers,
            with_old_head(variables, params[OBJECTIVE]["head"]),
            outputs.features["pre_logits"],
            image_shape,
            train=True,
            rngs=dict(zip(("dropout", "drop_path"), keys, strict=True)),
        )
        ratios = [len(view) // len(labels) for view in views]
        parts = partial(separate, counts=[1, *ratios])

        # FixMatch of the first head, which auxiliary heads learn too.
        heads = [parts(logits) for logits in (first_logits, *outputs.auxiliary)]
        weak = heads[0][1]
        predicted = confident_predictions(weak, jnp.full(weak.shape[1], threshold))
        learn = learn_classes(*predicted)
        ramp = ramp_up(state.step, ramp_up_steps)

        def unlabelled_loss(head):
            return (learn(head[2]) + learn(head[3])) / 2

        def fixmatch(head):
            added = weighted(weight, ramp * unlabelled_loss(head))
            return label_loss(head[0], labels) + added

        # The balanced losses of the model's head.
        own, weak, *strong = parts(outputs.logits)
        balanced = learn_classes(labels, batch["draw"] < rates[labels])(own)
        target = jax.lax.stop_gradient(jax.nn.softmax(weak))
        classes = target.argmax(-1)
        falling = 1 - state.step / steps * (1 - rates)
        used = (target.max(-1) >= threshold) & (unlabelled["draw"] < falling[classes])
        balanced += sum(map(learn_classes(target, used), strong))

        metrics = {
            "loss": cross_entropy(own, labels),
            "accuracy": accuracy(own, labels),
            "unlabelled_loss": unlabelled_loss(heads[0]),
            "balanced_loss": balanced,
            **usage_metrics(classes, used, unlabelled, known),
        }
        updates = {"batch_stats": outputs.batch_stats, "method_state": None}
        loss = fixmatch(heads[0]) + auxiliary_loss(fixmatch, heads[1:])
        return loss + balanced, (updates, metrics)

    return objective


def _with_draw(views: Prepare) -> Prepare:
    """Adds a uniform number per image, which decides whether it is learned from."""

    def prepare(keys, batch, key):
        keys, key_draw = jax.vmap(jax.random.split)(keys).T
        draw = jax.vmap(jax.random.uniform)(key_draw)
        return {**views(keys, batch, key), "draw": draw}

    return prepare


def _with_second(views: Prepare) -> Prepare:
    """Adds a second strong view."""

    def prepare(keys, batch, key):
        keys, key_second = jax.vmap(jax.random.split)(keys).T
        second = views(key_second, batch, key)["strong"]
        return {**views(keys, batch, key), "second": second}

    return prepare
