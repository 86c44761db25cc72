"""Which images of a set of label shards to train on, and how often: without a sort.

The log probability of an image's class is a float16 at or below 0, so there are 31,744
levels of confidence, and a histogram of them per class is exact. A first pass over the
shards adds up the histograms, from which each class's threshold follows; a second one
counts how many of each shard's images are chosen and, where the images at a threshold
are more than needed, how far the first ones of them reach. Memory grows with the number
of classes and of shards, and not with that of images.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from train.errors import UserError

__all__ = ["Choice", "TopClasses", "choose"]

_LEVELS = 0x7C00  # Bit patterns of finite float16, without the sign.
_NEVER = np.iinfo(np.int64).max
# The histograms of 1,024 classes take at most 130 MB; for more classes, the first pass
# is repeated.
_CLASSES_AT_ONCE = 1024


@dataclass(frozen=True)
class TopClasses:
    """The most probable class of each image of a shard.

    Attributes:
      classes: uint16 `[n]`.
      log_probs: float16 `[n]`, at or below 0; NaN for an unreadable image.
    """

    classes: np.ndarray
    log_probs: np.ndarray

    @property
    def levels(self) -> np.ndarray:
        """The levels of confidence, int32 `[n]`: 0 is certainty, NaN the last."""
        return (self.log_probs.view(np.uint16) & 0x7FFF).astype(np.int32)


@dataclass(frozen=True)
class Choice:
    """How often each image is taken.

    Attributes:
      levels: number of levels that are kept at all: those of confidences above the
        smallest one.
      times: how often each image of a class is taken, int64 `[K]`.
      threshold: level down to which the images of a class are taken once more, int32
        `[K]`; -1 for none.
      last: shard and number of the last image on that level that is, int64 `[2, K]`.
      counts: number of images taken from each shard, int64 `[S]`.
    """

    levels: int
    times: np.ndarray
    threshold: np.ndarray
    last: np.ndarray
    counts: np.ndarray

    def copies(self, shard: int, top: TopClasses) -> np.ndarray:
        """How often each image of a shard is taken, int64 `[n]`."""
        levels, classes = top.levels, top.classes
        last_shard, last_image = self.last[:, classes]
        image = np.arange(len(classes))
        is_first = (last_shard > shard) | (
            (last_shard == shard) & (image <= last_image)
        )
        threshold = self.threshold[classes]
        more = (levels < threshold) | ((levels == threshold) & is_first)
        return np.where(levels < self.levels, self.times[classes] + more, 0)


def choose(
    shards: Callable[[], Iterator[TopClasses]],
    classes: int,
    *,
    min_confidence: float = 0.0,
    per_class: int = 0,
) -> Choice:
    """Filters images by confidence, then balances the classes.

    The same as `select_pseudo_labels`, with one difference: of a class with fewer than
    `per_class` images, it is not a random choice but the most confident ones that are
    taken once more than the others. Of equal confidences, the image of the earlier
    shard comes first, and in a shard the earlier image.

    Args:
      shards: iterates over the shards; called once per pass.
      classes: number of classes K.
      min_confidence: images are kept if their confidence is above this.
      per_class: images per most probable class: the most confident ones, or all of
        them, repeated, if there are fewer; 0 does not balance the classes.

    Raises:
      UserError: if no image is left.
    """
    levels = _levels_above(min_confidence)
    times, threshold = np.ones(classes, np.int64), np.full(classes, -1, np.int32)
    needed = np.zeros(classes, np.int64)
    for start in range(0, classes if per_class else 0, _CLASSES_AT_ONCE):
        members = range(start, min(start + _CLASSES_AT_ONCE, classes))
        for k, histogram in zip(
            members, _histograms(shards(), members, levels), strict=True
        ):
            times[k], threshold[k], needed[k] = _quota(histogram, per_class)
    last = np.full((2, classes), _NEVER)
    choice = Choice(levels, times, threshold, last, np.zeros(0, np.int64))
    counts = []
    for shard, top in enumerate(shards()):
        _place_ties(choice, needed, shard, top)
        counts.append(int(choice.copies(shard, top).sum()))
    if not sum(counts):
        raise UserError(
            f"No image has a confidence above {min_confidence:g}. Lower "
            "--min-confidence."
        )
    return replace(choice, counts=np.asarray(counts, np.int64))


def _levels_above(min_confidence: float) -> int:
    """Number of levels whose probability is above a confidence."""
    values = -np.arange(_LEVELS, dtype=np.uint16).view(np.float16).astype(np.float64)
    return int(np.count_nonzero(np.exp(values) > min_confidence))


def _histograms(
    shards: Iterator[TopClasses], members: Sequence[int], levels: int
) -> np.ndarray:
    """Number of images of each of some classes at each level, uint32 `[m, levels]`."""
    counts = np.zeros((len(members), max(levels, 1)), np.uint32)
    for top in shards:
        level = top.levels
        place = top.classes.astype(np.int64) - members[0]
        kept = (level < levels) & (place >= 0) & (place < len(members))
        np.add.at(counts, (place[kept], level[kept]), 1)
    return counts


def _quota(histogram: np.ndarray, quota: int) -> tuple[int, int, int]:
    """How a class fills its quota, from its number of images at each level.

    Returns:
      How often each image is taken; the level down to which images are taken once more,
      -1 for none; and how many of those on that level are.
    """
    cumulated = np.cumsum(histogram, dtype=np.int64)
    if not cumulated[-1]:
        return 0, -1, 0
    times, more = divmod(quota, int(cumulated[-1]))
    if not more:
        return times, -1, 0
    threshold = int(np.searchsorted(cumulated, more))
    return times, threshold, more - int(cumulated[threshold] - histogram[threshold])


def _place_ties(
    choice: Choice, needed: np.ndarray, shard: int, top: TopClasses
) -> None:
    """Marks the last image at each class's threshold that is taken, if it is here.

    Args:
      choice: whose `last` is updated.
      needed: how many images at the threshold each class still takes; updated.
      shard: number of the shard.
      top: the shard.
    """
    tied = np.flatnonzero(top.levels == choice.threshold[top.classes])
    classes = top.classes[tied]
    found = np.bincount(classes, minlength=len(needed))
    for k in np.flatnonzero((needed > 0) & (needed <= found)):
        choice.last[:, k] = shard, tied[classes == k][needed[k] - 1]
    needed -= np.minimum(found, needed)
