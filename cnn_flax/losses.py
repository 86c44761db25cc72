"""Losses on logits: float arrays `[N, K]`, computed in float32 or wider."""

import jax
import jax.numpy as jnp
import optax

__all__ = ["cross_entropy"]


def cross_entropy(
    logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Mean cross entropy, `-mean_n sum_k p[n, k] * log softmax(logits)[n, k]`.

    Args:
      logits: `[N, K]`, any float dtype.
      labels: classes, int `[N]` in `[0, K)`, or probabilities, float `[N, K]`.
      label_smoothing: share of each label that is spread evenly over all classes, in
        [0, 1] (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7).

    Returns:
      Scalar, in nats, float32 or wider.

    Raises:
      ValueError: if the shapes do not fit or `label_smoothing` is outside [0, 1].
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}.")
    if labels.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(
            f"Labels are [N] or [N, K] for logits [N, K]; got labels {labels.shape} "
            f"for logits {logits.shape}."
        )
    logits = logits.astype(jnp.promote_types(jnp.float32, logits.dtype))
    if labels.ndim == 1:
        labels = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    labels = optax.smooth_labels(labels, label_smoothing)
    return optax.softmax_cross_entropy(logits, labels).mean()
