"""What a step's metrics say about the unlabelled images."""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["threshold_metrics", "usage_metrics"]


def usage_metrics(
    classes: jax.Array, weights: jax.Array, batch: Any, known: bool
) -> dict[str, jax.Array]:
    """The share of the unlabelled images that is used, and used with the right label.

    Args:
      classes: the predicted classes, int `[N]`.
      weights: weights of the images in the loss, `[N]`, or a boolean mask.
      batch: the unlabelled images.
      known: whether the batch's `label` holds the true classes.
    """
    metrics = {"unlabelled_used": jnp.mean(weights)}
    if known:
        right = weights * (classes == batch["label"])
        metrics["unlabelled_used_right"] = jnp.mean(right)
    return metrics


def threshold_metrics(thresholds: jax.typing.ArrayLike) -> dict[str, jax.Array]:
    """The confidence from which an unlabelled image counts in full.

    Args:
      thresholds: one for all classes, or one per class `[K]`, whose mean, lowest and
        highest are the metrics.
    """
    thresholds = jnp.asarray(thresholds)
    metrics = {"unlabelled_threshold": thresholds.mean()}
    if thresholds.ndim:
        metrics["unlabelled_threshold_lowest"] = thresholds.min()
        metrics["unlabelled_threshold_highest"] = thresholds.max()
    return metrics
