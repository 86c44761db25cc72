"""SoftMatch: FixMatch with a Gaussian weight per image in place of the threshold.

Chen et al. 2023, "SoftMatch: addressing the quantity-quality trade-off in
semi-supervised learning", https://arxiv.org/abs/2301.10921.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.learn.alignment import align
from train.learn.method import Method, Setup
from train.learn.semi_supervised import (
    UnlabelledLoss,
    learn_classes,
    semi_supervised_method,
    weak_and_strong_views,
)
from train.learn.unlabelled_metrics import threshold_metrics, usage_metrics

__all__ = ["SoftMatchState", "initial_state", "make_method", "softmatch"]


class SoftMatchState(NamedTuple):
    """Exponential moving averages of statistics of the weak views' predictions.

    Attributes:
      mean: mu, mean confidence, scalar.
      variance: sigma^2, unbiased variance of the confidence, scalar.
      class_probabilities: mean probability of each class, `[K]`.
    """

    mean: jax.typing.ArrayLike
    variance: jax.typing.ArrayLike
    class_probabilities: jax.typing.ArrayLike


def make_method(setup: Setup) -> Method:
    """The method of `--consistency softmatch`."""
    options = setup.config.unlabelled
    loss = softmatch(
        options.softmatch_momentum,
        options.softmatch_n_sigma,
        setup.knows_true_labels,
        setup.axis,
    )
    state = initial_state(len(setup.train.class_names))
    return semi_supervised_method(setup, loss, weak_and_strong_views(setup), state)


def initial_state(num_classes: int) -> SoftMatchState:
    """The state before the first step: mu is 1 / K, sigma^2 is 1, the classes uniform.

    It is float32, or float64 under `JAX_ENABLE_X64`.
    """
    dtype = jnp.result_type(float)
    uniform = np.full(num_classes, 1 / num_classes, dtype)
    return SoftMatchState(uniform[0], np.ones((), dtype), uniform)


def softmatch(
    momentum: float = 0.999,
    n_sigma: float = 2.0,
    known: bool = False,
    axis: str | None = None,
) -> UnlabelledLoss:
    """Algorithm 1, with lambda_max 1.

    A step first updates the moving averages with its batch, then computes the weights
    from them. With p the prediction for the weak view, uniform alignment UA(p) is
    `p * u / E[p]`, normalised to sum to 1, u being the uniform distribution and E[p]
    the moving average. The weight is 1 where max(UA(p)) is at least mu, and
    `exp(-(max(UA(p)) - mu)^2 / (2 (sigma / n_sigma)^2))` below. The pseudo-label is
    the largest of p, unaligned.

    The paper's equation has no n_sigma, which is 1 there; 2 is the value in the
    authors' code. mu and sigma^2 are moments of max(p), as in the paper; in USB, the
    authors' later code, they are those of max(UA(p)).

    Args:
      momentum: m, decay of the moving averages, in [0, 1).
      n_sigma: divides sigma, above 0; the larger it is, the steeper the weight falls.
      known: whether `label` holds the true classes, to measure by.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
    """

    def loss(views, batch, method_state):
        weak, _ = views
        weak = jax.lax.stop_gradient(weak)
        statistics = _batch_statistics(weak, axis)
        state: Any = optax.incremental_update(statistics, method_state, 1 - momentum)
        classes = weak.argmax(-1)
        weights = _weights(weak, state, n_sigma)
        metrics = {
            **usage_metrics(classes, weights, batch, known),
            **threshold_metrics(state.mean),
        }
        return learn_classes(classes, weights), state, metrics

    return loss


def _batch_statistics(logits: jax.Array, axis: str | None) -> SoftMatchState:
    """The statistics of one batch, over all devices."""

    def mean(rows):
        mean = jnp.mean(rows, axis=0)
        return mean if axis is None else jax.lax.pmean(mean, axis)

    probabilities = jax.nn.softmax(logits)
    confidence = probabilities.max(-1)
    mu = mean(confidence)
    count = len(logits) * (1 if axis is None else jax.lax.axis_size(axis))
    # The variance of a single image is not defined; its deviation is 0.
    variance = mean((confidence - mu) ** 2) * (count / max(count - 1, 1))
    return SoftMatchState(mu, variance, mean(probabilities))


def _weights(logits: jax.Array, state: SoftMatchState, n_sigma: float) -> jax.Array:
    """The weight of each image, `[N]`."""
    aligned = align(logits, jnp.asarray(state.class_probabilities))
    below = jnp.minimum(aligned.max(-1) - state.mean, 0)
    # The variance of confidences that are all equal may underflow to 0.
    sigma = jnp.sqrt(jnp.maximum(state.variance, jnp.finfo(logits.dtype).tiny))
    return jnp.exp(-0.5 * (below / sigma * n_sigma) ** 2)
