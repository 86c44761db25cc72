"""Long-tailed subsets of a set of images, and balanced sampling from one."""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from train.data.source import Source, SourceError, shuffled_classes

__all__ = ["balanced", "long_tailed", "long_tailed_shares"]


def long_tailed_shares(classes: int, imbalance: float) -> np.ndarray:
    """Size of each class as a share of the first: `imbalance ** (-k / (K - 1))`.

    Cui et al. 2019, "Class-balanced loss based on effective number of samples",
    https://arxiv.org/abs/1901.05555, section 5.1.

    Args:
      classes: K, number of classes.
      imbalance: ratio of the first class's size to the last one's, at least 1.
    """
    return imbalance ** (-np.arange(classes) / max(classes - 1, 1))


def long_tailed(source: Source, imbalance: float, seed: int) -> Source:
    """A subset whose classes have sizes that fall exponentially.

    Class k keeps the share `long_tailed_shares` of the largest class's size, or all of
    its images if it has fewer; at least one.

    Args:
      source: the whole set.
      imbalance: ratio of the first class's size to the last one's, at least 1.
      seed: of the random choice.

    Raises:
      SourceError: if the imbalance is below 1.
    """
    if not 1 <= imbalance < np.inf:
        raise SourceError(f"{source.spec}: imbalance {imbalance} must be at least 1")
    if imbalance == 1:
        return source
    shares = long_tailed_shares(len(source.class_names), imbalance)
    largest = np.bincount(source.labels).max()
    chosen = [
        members[: max(1, round(largest * shares[label]))]
        for label, members in shuffled_classes(source.labels, seed)
    ]
    return source.take(np.sort(np.concatenate(chosen)))


def balanced(source: Source) -> Source:
    """The set in an order that draws all of its classes equally often.

    Each epoch has as many images as the set. Of a class with fewer images than its
    part, each is drawn equally often, but for one; of a class with more, a random part
    is left out of that epoch. The order is random, and a function of the seed and the
    epoch.
    """

    @lru_cache(4)
    def order(seed: int, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch])
        labels = source.labels
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        parts = np.full(len(groups), len(labels) // len(groups))
        parts[rng.permutation(len(groups))[: len(labels) % len(groups)]] += 1
        drawn = []
        for members, part in zip(groups, parts, strict=True):
            times = -(-part // len(members))
            orders = [rng.permutation(members) for _ in range(times)]
            drawn.append(np.concatenate([members[:0], *orders])[:part])
        return rng.permutation(np.concatenate(drawn))

    return replace(source, order=order)
