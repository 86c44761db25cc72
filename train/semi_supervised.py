"""Learning from images without labels, beside those that have some.

Each step has N labelled images and `ratio * N` others. All views of them go through the
model at once, so that they share the statistics of the batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from cnn_flax.losses import cross_entropy
from train.objectives import Objective, accuracy, training_pass

__all__ = [
    "Unlabelled",
    "fixmatch",
    "flexmatch",
    "interleave",
    "label_loss",
    "pseudo_label",
    "ramp_up",
    "semi_supervised",
    "separate",
]

# Logits of the unlabelled images' views, the prepared images, and the state's memory;
# gives the loss, the new memory and metrics.
Unlabelled = Callable[..., tuple[jax.Array, Any, dict[str, jax.Array]]]


def semi_supervised(
    model: nn.Module,
    unlabelled: Unlabelled,
    *,
    weight: float = 1.0,
    ramp_up_steps: int = 0,
    label_smoothing: float = 0.0,
    axis: str | None = None,
    freeze_bn: bool = False,
) -> Objective:
    """Cross entropy with the labels, and what the other images add to it.

    Args:
      model: gives logits `[N, K]`.
      unlabelled: their loss, one of this module's.
      weight: of that loss.
      ramp_up_steps: steps over which the weight rises.
      label_smoothing: share of each label that is spread evenly, in [0, 1].
      axis: the mapped axis that the batch is split over under `jax.pmap`, else None.
      freeze_bn: whether BatchNorm uses its running statistics, and keeps them.

    Returns:
      The objective. Its batch has `image`, `label`, and the others in `unlabelled`:
      their `image` `[ratio * N, H, W, C]`, a second view `strong` where there is one,
      and what the loss takes. Its metrics are those of the labelled images, `loss` and
      `accuracy`; `unlabelled_loss`, without the weight; and that loss's own.
    """
    run = training_pass(model, axis=axis, freeze_bn=freeze_bn)

    def objective(params, state, batch, key):
        others = batch["unlabelled"]
        views = [others[name] for name in ("image", "strong") if name in others]
        images = interleave([batch["image"], *views])
        logits, batch_stats, _ = run(params, state, images, key)
        ratio = len(others["image"]) // len(batch["image"])
        labelled, *views = separate(logits, [1] + [ratio] * len(views))
        loss = cross_entropy(labelled, batch["label"], label_smoothing)
        more, memory, metrics = unlabelled(views, others, state.memory)
        now = weight * ramp_up(state.step, ramp_up_steps)
        changes = {"batch_stats": batch_stats, "memory": memory}
        metrics = {
            "loss": loss,
            "accuracy": accuracy(labelled, batch["label"]),
            "unlabelled_loss": more,
            **metrics,
        }
        return loss + now * more, (changes, metrics)

    return objective


def interleave(parts: list[jax.Array]) -> jax.Array:
    """Puts rows together so that each of N images is followed by its own of each part.

    On many devices no row has to move: those of a device stay together.

    Args:
      parts: `[k * N, ...]`, N being the first one's length, with each its own k.
    """
    count = len(parts[0])
    groups = [part.reshape(count, -1, *part.shape[1:]) for part in parts]
    rows = jnp.concatenate(groups, axis=1)
    return rows.reshape(-1, *rows.shape[2:])


def separate(rows: jax.Array, counts: list[int]) -> list[jax.Array]:
    """The way back from `interleave`.

    Args:
      rows: `[sum(counts) * N, ...]`.
      counts: the k of each part.
    """
    groups = rows.reshape(-1, sum(counts), *rows.shape[1:])
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    parts = jnp.split(groups, ends[:-1], axis=1)
    return [part.reshape(-1, *rows.shape[1:]) for part in parts]


def ramp_up(step: jax.typing.ArrayLike, steps: int) -> jax.typing.ArrayLike:
    """`exp(-5 (1 - t)^2)` with t rising from 0 to 1 over `steps`, and then 1.

    Laine and Aila 2017, https://arxiv.org/abs/1610.02242, section 2.1.
    """
    if not steps:
        return 1.0
    left = 1 - jnp.minimum(step / steps, 1.0)
    return jnp.exp(-5 * left**2)


def label_loss(views: list[jax.Array], others: Any, memory: Any):
    """Cross entropy with the labels that they were given; an `Unlabelled`."""
    (logits,) = views
    loss = cross_entropy(logits, others["label"])
    return loss, memory, {"unlabelled_accuracy": accuracy(logits, others["label"])}


def pseudo_label(threshold: float, known: bool = False) -> Unlabelled:
    """The model's own answers as labels, where it is sure.

    The class of the largest logit is the label of the same view: Lee 2013,
    "Pseudo-label: the simple and efficient semi-supervised learning method for deep
    neural networks", equation 14, which has no threshold, and a weight that rises.

    Args:
      threshold: least probability of an answer.
      known: whether `label` holds the true classes, to measure by.
    """

    def loss(views, others, memory):
        (logits,) = views
        answers, sure = _answers(logits, jnp.full(logits.shape[1], threshold))
        metrics = _measured(answers, sure, others, known)
        return _masked(logits, answers, sure), memory, metrics

    return loss


def fixmatch(threshold: float, known: bool = False) -> Unlabelled:
    """Answers to a weak change of an image as labels of a strong one, where it is sure.

    Sohn et al. 2020, https://arxiv.org/abs/2001.07685, equation 4: a mean over all
    images, with 0 for those below the threshold.

    Args:
      threshold: tau, least probability of an answer.
      known: whether `label` holds the true classes, to measure by.
    """

    def loss(views, others, memory):
        weak, strong = views
        answers, sure = _answers(weak, jnp.full(weak.shape[1], threshold))
        metrics = _measured(answers, sure, others, known)
        return _masked(strong, answers, sure), memory, metrics

    return loss


def flexmatch(
    threshold: float, known: bool = False, axis: str | None = None
) -> Unlabelled:
    """FixMatch with a threshold for each class, lower where it is learned less.

    Zhang et al. 2021, https://arxiv.org/abs/2110.08263, algorithm 1. A class's status x
    is the number of images whose last sure answer it was, as a share of the largest
    such number, or of the number of images without a sure answer while that is larger
    (the threshold's warm-up). Its threshold is `tau * x / (2 - x)` (the convex map).

    The memory is each image's last sure answer, int `[images]`, -1 before there is one;
    `image_index` says which images the batch has.

    Args:
      threshold: tau.
      known: whether `label` holds the true classes, to measure by.
      axis: the mapped axis that the batch is split over under `jax.pmap`, else None.
    """

    def loss(views, others, memory):
        weak, strong = views
        classes = weak.shape[1]
        counts = jnp.bincount(memory + 1, length=classes + 1)
        status = counts[1:] / counts.max()
        answers, sure = _answers(weak, threshold * status / (2 - status))
        metrics = _measured(answers, sure, others, known)
        _, surest = _answers(weak, jnp.full(classes, threshold))
        told = (others["image_index"], answers, surest)
        if axis is not None:
            told = jax.lax.all_gather(told, axis, tiled=True)
        index, latest, surest = told
        index = jnp.where(surest, index, len(memory))
        memory = memory.at[index].set(latest.astype(memory.dtype), mode="drop")
        return _masked(strong, answers, sure), memory, metrics

    return loss


def _answers(logits: jax.Array, thresholds: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Classes `[N]`, and whether their probability is at least their threshold."""
    logits = jax.lax.stop_gradient(logits)
    answers = logits.argmax(-1)
    return answers, jax.nn.softmax(logits).max(-1) >= thresholds[answers]


def _masked(logits: jax.Array, answers: jax.Array, sure: jax.Array) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, answers)
    return jnp.mean(losses * sure)


def _measured(answers: jax.Array, sure: jax.Array, others: Any, known: bool):
    metrics = {"unlabelled_used": jnp.mean(sure)}
    if known:
        metrics["unlabelled_used_right"] = jnp.mean(sure & (answers == others["label"]))
    return metrics
