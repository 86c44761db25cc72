"""FlexMatch: FixMatch with a threshold per class, lower for less learned classes.

Zhang et al. 2021, "FlexMatch: boosting semi-supervised learning with curriculum pseudo
labeling", https://arxiv.org/abs/2110.08263.
"""

import jax
import jax.numpy as jnp
import numpy as np

from train.learn.method import Method, Setup
from train.learn.semi_supervised import (
    UnlabelledLoss,
    confident_predictions,
    learn_classes,
    semi_supervised_method,
    weak_and_strong_views,
)
from train.learn.unlabelled_metrics import threshold_metrics, usage_metrics

__all__ = ["flexmatch", "make_method"]


def make_method(setup: Setup) -> Method:
    """The method of `--consistency flexmatch`."""
    assert setup.unlabelled is not None
    threshold = setup.config.unlabelled.threshold
    loss = flexmatch(threshold, setup.knows_true_labels, setup.axis)
    latest = np.full(len(setup.unlabelled), -1, np.int32)
    return semi_supervised_method(setup, loss, weak_and_strong_views(setup), latest)


def flexmatch(
    threshold: float, known: bool = False, axis: str | None = None
) -> UnlabelledLoss:
    """Algorithm 1, with the convex mapping and the threshold's warm-up.

    The learning status x of a class is the number of images whose latest confident
    prediction is that class, divided by the largest such number, or by the number of
    images without a confident prediction while that is larger (the warm-up). The
    threshold of the class is `tau * x / (2 - x)`.

    The state is the latest confident prediction of each image, int `[images]`, -1
    before the first one; `image_index` says which images are in the batch.

    Args:
      threshold: tau.
      known: whether `label` holds the true classes, for metrics.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
    """

    def loss(views, batch, method_state):
        (weak, _), latest = views, method_state
        num_classes = weak.shape[1]
        counts = jnp.bincount(latest + 1, length=num_classes + 1)
        status = counts[1:] / counts.max()
        thresholds = threshold * status / (2 - status)
        classes, confident = confident_predictions(weak, thresholds)
        metrics = {
            **usage_metrics(classes, confident, batch, known),
            **threshold_metrics(thresholds),
        }
        _, above_tau = confident_predictions(weak, jnp.full(num_classes, threshold))
        rows = (batch["image_index"], classes, above_tau)
        if axis is not None:
            rows = jax.lax.all_gather(rows, axis, tiled=True)
        index, new, is_new = rows
        index = jnp.where(is_new, index, len(latest))  # Dropped if out of bounds.
        latest = latest.at[index].set(new.astype(latest.dtype), mode="drop")
        return learn_classes(classes, confident), latest, metrics

    return loss
