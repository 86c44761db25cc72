"""The loss of labels: cross entropy, or binary cross entropy for several per image."""

from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from cnn_flax.losses import binary_cross_entropy, cross_entropy
from train.config import Config, UnevenClasses
from train.data import Source
from train.errors import UserError

__all__ = [
    "LabelLoss",
    "balanced_weights",
    "class_counts",
    "keep_rates",
    "label_loss",
    "logit_adjusted",
]


class LabelLoss(Protocol):
    """The loss of labels."""

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Computes the mean loss in nats.

        Args:
          logits: `[N, K]`.
          labels: classes, int `[N]`, or probabilities `[N, K]`; for images with several
            classes each, 1 or 0 per class `[N, K]`.
        """
        ...


def label_loss(config: Config, train: Source) -> LabelLoss:
    """The loss of labels that a config asks for.

    Args:
      config: the run's config.
      train: the training images. Their labels are only counted, for which the whole set
        may have to be read, if the loss depends on the counts.

    Raises:
      UserError: if images have several classes each and classes shall be balanced.
    """
    options, smoothing = config.uneven_classes, config.optimization.label_smoothing
    if train.multi_label:
        if options != UnevenClasses():
            raise UserError(
                f"{train.spec} has several classes per image: --class-weights, "
                "--logit-adjustment and --balanced-sampling need one."
            )
        return partial(binary_cross_entropy, label_smoothing=smoothing)
    loss = partial(cross_entropy, label_smoothing=smoothing)
    if options.class_weights == "balanced":
        loss = partial(loss, class_weights=balanced_weights(class_counts(train)))
    if options.logit_adjustment:
        loss = logit_adjusted(loss, class_counts(train), options.logit_adjustment)
    return loss


def class_counts(source: Source) -> np.ndarray:
    """Number of images of each class, `[K]`."""
    return np.bincount(source.labels, minlength=len(source.class_names))


def balanced_weights(counts: np.ndarray) -> np.ndarray:
    """`n / (K n_k)`, scikit-learn's "balanced" class weights; 0 for empty classes.

    Over the training images they have mean 1, and each class has the same total; K is
    the number of classes with images.

    Args:
      counts: n_k, number of training images per class, `[K]`.
    """
    filled = counts > 0
    shares = counts.sum() / (filled.sum() * np.where(filled, counts, 1))
    return np.where(filled, shares, 0)


def keep_rates(counts: np.ndarray) -> np.ndarray:
    """Shares of each class to keep so that all have as many as the rarest, `[K]`.

    Classes without images have 1, and are not the rarest.

    Args:
      counts: n_k, number of training images per class, `[K]`.
    """
    filled = counts > 0
    return np.where(filled, counts[filled].min() / np.where(filled, counts, 1), 1.0)


def logit_adjusted(loss: LabelLoss, counts: np.ndarray, tau: float) -> LabelLoss:
    """The loss of `logits + tau * log(n_k / n)`.

    A model that is trained with it ranks the classes by their probability as if all
    were equally frequent, for tau 1: its logits are used as they are. Menon et al.
    2021, "Long-tail learning via logit adjustment", https://arxiv.org/abs/2007.07314,
    equation 10. A class without images counts as if it had one.

    Args:
      loss: the loss to adjust.
      counts: n_k, number of training images per class, `[K]`.
      tau: strength of the adjustment.
    """
    counts = np.maximum(counts, 1)
    offsets = tau * np.log(counts / counts.sum())[None]

    def adjusted(logits: jax.Array, labels: jax.Array) -> jax.Array:
        wide = jnp.promote_types(jnp.float32, logits.dtype)
        return loss(logits.astype(wide) + offsets.astype(wide), labels)

    return adjusted
