"""FreeMatch: FixMatch with thresholds that follow the model's confidence.

Wang et al. 2023, "FreeMatch: self-adaptive thresholding for semi-supervised learning",
https://arxiv.org/abs/2205.07246.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.learn.method import Method, Setup
from train.learn.semi_supervised import (
    UnlabelledLoss,
    confident_predictions,
    learn_classes,
    semi_supervised_method,
    weak_and_strong_views,
)
from train.learn.unlabelled_metrics import threshold_metrics, usage_metrics

__all__ = ["FreeMatchState", "freematch", "initial_state", "make_method"]


class FreeMatchState(NamedTuple):
    """Exponential moving averages of statistics of the weak views' predictions.

    Attributes:
      threshold: tau, mean confidence, scalar.
      class_probabilities: p, mean probability of each class, `[K]`.
      class_shares: h, share of the images that each class is predicted for, `[K]`.
    """

    threshold: jax.typing.ArrayLike
    class_probabilities: jax.typing.ArrayLike
    class_shares: jax.typing.ArrayLike


def make_method(setup: Setup) -> Method:
    """The method of `--consistency freematch`."""
    options = setup.config.unlabelled
    loss = freematch(
        options.freematch_momentum,
        options.freematch_fairness,
        setup.knows_true_labels,
        setup.axis,
    )
    state = initial_state(len(setup.train.class_names))
    return semi_supervised_method(setup, loss, weak_and_strong_views(setup), state)


def initial_state(num_classes: int) -> FreeMatchState:
    """The state before the first step: 1 / K everywhere.

    It is float32, or float64 under `JAX_ENABLE_X64`.
    """
    uniform = np.full(num_classes, 1 / num_classes, jnp.result_type(float))
    return FreeMatchState(uniform[0], uniform, uniform)


def freematch(
    momentum: float = 0.999,
    fairness: float = 0.01,
    known: bool = False,
    axis: str | None = None,
) -> UnlabelledLoss:
    """Algorithm 1.

    A step first updates the moving averages with its batch, then computes the
    thresholds from them (equations 5 to 8): class c has `tau * p(c) / max(p)`. An image
    is used if its weak view's confidence reaches the threshold of the predicted class.

    Self-adaptive fairness (equations 9 to 11) adds `fairness` times the negative cross
    entropy between `p / h` and the same of the strong views of the images that are
    used: their mean probabilities over the shares of their predicted classes. Both are
    normalised to sum to 1; a class of share 0 has 0. Where no image is used, it is 0.

    Args:
      momentum: lambda, decay of the moving averages, in [0, 1).
      fairness: w_f, weight of the fairness term relative to that of the pseudo-labels.
      known: whether `label` holds the true classes, for metrics.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
    """

    def mean(rows):
        mean = jnp.mean(rows, axis=0)
        return mean if axis is None else jax.lax.pmean(mean, axis)

    def loss(views, batch, method_state):
        weak = jax.lax.stop_gradient(views[0])
        state: Any = optax.incremental_update(
            _batch_statistics(weak, mean), method_state, 1 - momentum
        )
        shares = state.class_probabilities / state.class_probabilities.max()
        thresholds = state.threshold * shares
        classes, used = confident_predictions(weak, thresholds)
        metrics = {
            **usage_metrics(classes, used, batch, known),
            **threshold_metrics(thresholds),
        }
        target = _sum_norm(state.class_probabilities, state.class_shares)

        def unlabelled_loss(logits):
            fair = _fairness(logits, used, target, mean)
            return learn_classes(classes, used)(logits) + fairness * fair

        return unlabelled_loss, state, metrics

    return loss


def _batch_statistics(logits: jax.Array, mean: Any) -> FreeMatchState:
    """The statistics of one batch, over all devices."""
    probabilities = jax.nn.softmax(logits)
    predicted = jax.nn.one_hot(logits.argmax(-1), logits.shape[1], dtype=logits.dtype)
    return FreeMatchState(
        mean(probabilities.max(-1)), mean(probabilities), mean(predicted)
    )


def _fairness(
    logits: jax.Array, used: jax.Array, target: jax.Array, mean: Any
) -> jax.Array:
    """The negative cross entropy of equation 11, a scalar.

    Args:
      logits: of the strong views, `[N, K]`.
      used: whether an image is used, `[N]`.
      target: `p / h`, normalised, `[K]`.
      mean: mean over the images of all devices.
    """
    weights = used.astype(logits.dtype)[:, None]
    predicted = jax.nn.one_hot(logits.argmax(-1), logits.shape[1], dtype=logits.dtype)
    strong = _sum_norm(
        mean(weights * jax.nn.softmax(logits)), mean(weights * predicted)
    )
    # 0 for a class that no strong view has, and all of them if no image is used.
    logs = jnp.log(jnp.where(strong > 0, strong, 1))
    return jnp.sum(target * logs)


def _sum_norm(probabilities: jax.Array, shares: jax.Array) -> jax.Array:
    """`probabilities / shares`, 0 where the share is 0, as a share of their sum."""
    ratio = jnp.where(shares > 0, probabilities / jnp.where(shares > 0, shares, 1), 0)
    total = ratio.sum()
    return ratio / jnp.where(total > 0, total, 1)
