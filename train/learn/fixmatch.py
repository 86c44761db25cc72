"""FixMatch: predictions for weak views as labels of strong views.

Sohn et al. 2020, "FixMatch: simplifying semi-supervised learning with consistency and
confidence", https://arxiv.org/abs/2001.07685.
"""

import jax.numpy as jnp

from train.learn.method import Method, Setup
from train.learn.semi_supervised import (
    UnlabelledLoss,
    confident_predictions,
    learn_classes,
    semi_supervised_method,
    weak_and_strong_views,
)
from train.learn.unlabelled_metrics import usage_metrics

__all__ = ["fixmatch", "make_method"]


def make_method(setup: Setup) -> Method:
    """The method of `--consistency fixmatch`."""
    loss = fixmatch(setup.config.unlabelled.threshold, setup.knows_true_labels)
    return semi_supervised_method(setup, loss, weak_and_strong_views(setup))


def fixmatch(threshold: float, known: bool = False) -> UnlabelledLoss:
    """Equation 4: the mean over all images, with 0 for those below the threshold.

    Args:
      threshold: tau, the smallest confidence of a prediction that is learned from.
      known: whether `label` holds the true classes, for metrics.
    """

    def loss(views, batch, method_state):
        weak, _ = views
        classes, confident = confident_predictions(
            weak, jnp.full(weak.shape[1], threshold)
        )
        metrics = usage_metrics(classes, confident, batch, known)
        return learn_classes(classes, confident), method_state, metrics

    return loss
