"""MixMatch: guessed labels, and Mixup of labelled and unlabelled images.

Berthelot et al. 2019, "MixMatch: a holistic approach to semi-supervised learning",
https://arxiv.org/abs/1905.02249, algorithm 1.
"""

import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnn_flax.losses import cross_entropy
from train.learn.inputs import Prepare, train_inputs, two_streams, weakly_augmented
from train.learn.label_loss import LabelLoss
from train.learn.method import Method, Setup
from train.learn.objectives import (
    Objective,
    accuracy,
    auxiliary_loss,
    training_pass,
    weighted,
)
from train.learn.semi_supervised import interleave, separate

__all__ = ["make_method", "mix", "mixmatch", "sharpen"]


def make_method(setup: Setup) -> Method:
    """The method of `--consistency mixmatch`."""
    options = setup.config.unlabelled
    objective = mixmatch(
        setup.model,
        temperature=options.mixmatch_temperature,
        weight=options.unlabelled_weight,
        ramp_up_steps=setup.ramp_up_steps,
        known=setup.knows_true_labels,
        label_loss=setup.label_loss,
        **setup.pass_options,
    )
    weak = train_inputs(weakly_augmented(setup.config.augment), **setup.input_options)
    views = partial(_views, weak, options.mixmatch_alpha)
    prepare = two_streams(views(("image",)), views(("image", "second")))
    return Method(objective, prepare)


def mixmatch(
    model: nn.Module,
    *,
    temperature: float = 0.5,
    weight: float = 75.0,
    ramp_up_steps: int = 0,
    known: bool = False,
    label_loss: LabelLoss = cross_entropy,
    axis: str | None = None,
    freeze_bn: bool = False,
    remat: bool = False,
) -> Objective:
    """Equations 2 to 5, with two augmented views per unlabelled image.

    The guess for an unlabelled image is the mean of the predictions for its views,
    sharpened, and the target of both. Each view is mixed with a random one of all
    views, and so are labels and guesses. The labelled images' loss is the cross
    entropy, the unlabelled ones' the squared error of the probabilities, a mean over
    views and classes, whose weight ramps up linearly.

    Guesses are made in training mode, with the batch statistics of the unlabelled
    views. The mixed images pass through the model together, and the running statistics
    are theirs alone; in the authors' code, those of a part of them.

    Args:
      model: a module that returns logits `[N, K]`.
      temperature: T of the sharpening, above 0.
      weight: lambda_U, weight of the unlabelled images' loss after the ramp.
      ramp_up_steps: steps over which the weight ramps up from 0.
      known: whether unlabelled `label`s hold the true classes, for metrics.
      label_loss: loss of the labels, a function of logits and probabilities.
      axis: mapped axis that the batch is split over under `jax.pmap`, or None.
      freeze_bn: see `train.learn.objectives.training_pass`.
      remat: see there.

    Returns:
      The objective. Its batch has `image` `[N, H, W, C]`, `label`, `share` `[N, 1]`,
      and in `unlabelled` a batch of `image` and `second` `[ratio * N, H, W, C]`, and
      `share` `[ratio * N, 2]`: lambda' of each view, its own part in its mixture. The
      metrics `loss` and `accuracy` are those of the mixed labelled images.
    """
    run = training_pass(model, axis=axis, freeze_bn=freeze_bn, remat=remat)

    def objective(params, state, batch, key):
        key_guess, key_order, key_mixed = jax.random.split(key, 3)
        labels, unlabelled = batch["label"], batch["unlabelled"]
        views = [unlabelled["image"], unlabelled["second"]]
        logits = run(params, state, interleave(views), key_guess).logits
        first, second = map(jax.nn.softmax, separate(logits, [1, 1]))
        guess = jax.lax.stop_gradient(sharpen((first + second) / 2, temperature))
        if labels.ndim == 1:
            labels = jax.nn.one_hot(labels, guess.shape[1], dtype=guess.dtype)

        parts = [(batch["image"], labels), *((view, guess) for view in views)]
        shares = [*batch["share"].T, *unlabelled["share"].T]
        mixed = mix(key_order, parts, shares, axis)
        images, targets = ([part[i] for part in mixed] for i in (0, 1))

        outputs = run(params, state, interleave(images), key_mixed)
        counts = [len(rows) // len(batch["image"]) for rows in images]
        heads = [separate(x, counts) for x in (outputs.logits, *outputs.auxiliary)]

        def loss_of(head):
            return label_loss(head[0], targets[0])

        def unlabelled_loss(head):
            pairs = zip(targets[1:], head[1:], strict=True)
            errors = [jnp.square(q - jax.nn.softmax(p)) for q, p in pairs]
            return jnp.mean(jnp.stack(errors))

        loss, added = loss_of(heads[0]), unlabelled_loss(heads[0])
        metrics = {
            "loss": loss,
            "accuracy": accuracy(heads[0][0], targets[0]),
            "unlabelled_loss": added,
            "unlabelled_confidence": guess.max(-1).mean(),
        }
        if known:
            metrics["unlabelled_accuracy"] = accuracy(guess, unlabelled["label"])
        updates = {"batch_stats": outputs.batch_stats, "method_state": None}
        loss += auxiliary_loss(loss_of, heads[1:])
        added += auxiliary_loss(unlabelled_loss, heads[1:])
        ramp = jnp.minimum(state.step / ramp_up_steps, 1) if ramp_up_steps else 1
        return loss + weighted(weight, ramp * added), (updates, metrics)

    return objective


def sharpen(probabilities: jax.Array, temperature: float) -> jax.Array:
    """Equation 7: `p ** (1 / T)`, normalised to sum to 1; p and the result `[N, K]`."""
    # Relative to the largest, so that no row underflows to 0 as a whole.
    ratios = probabilities / probabilities.max(-1, keepdims=True)
    powers = ratios ** (1 / temperature)
    return powers / powers.sum(-1, keepdims=True)


def mix(
    key: jax.Array,
    parts: Sequence[Any],
    shares: Sequence[jax.Array],
    axis: str | None = None,
) -> list[Any]:
    """Equations 8 to 11: each row of the parts with its partner among all rows.

    The partners are a random order of all rows, of all devices.

    Args:
      key: a random key, the same on all devices.
      parts: trees of arrays `[n, ...]`, each with its own n.
      shares: lambda', weight of each part's rows, `[n]` each; the partner has the rest.
      axis: mapped axis that the rows are split over under `jax.pmap`; None otherwise.
    """
    pool, count, device = list(parts), 1, 0
    if axis is not None:
        pool = jax.lax.all_gather(pool, axis, tiled=True)
        count, device = jax.lax.axis_size(axis), jax.lax.axis_index(axis)
    pool = jax.tree.map(lambda *rows: jnp.concatenate(rows), *pool)
    order = jax.random.permutation(key, count * sum(map(len, shares)))

    def blend(share, rows, partners):
        share = share.reshape(-1, *[1] * (rows.ndim - 1))
        return share * rows + (1 - share) * partners

    mixed, start = [], 0
    for part, share in zip(parts, shares, strict=True):
        first = start + device * len(share)
        index = jax.lax.dynamic_slice_in_dim(order, first, len(share))
        partners = jax.tree.map(operator.itemgetter(index), pool)
        mixed.append(jax.tree.map(partial(blend, share), part, partners))
        start += count * len(share)
    return mixed


def _views(weak: Prepare, alpha: float, names: Sequence[str]) -> Prepare:
    """Weakly augmented views by these names, and the weight of each in its mixture."""

    def prepare(keys, batch, key):
        keys = jax.vmap(partial(jax.random.split, num=len(names) + 1))(keys)
        *key_views, key_share = keys.T
        views = {
            name: weak(key_view, batch, key)["image"]
            for name, key_view in zip(names, key_views, strict=True)
        }
        draw = partial(jax.random.beta, a=alpha, b=alpha, shape=(len(names),))
        share = jax.vmap(draw)(key_share)
        return {**batch, **views, "share": jnp.maximum(share, 1 - share)}

    return prepare
