"""Confidence intervals of an evaluation's figures, by the bootstrap."""

from collections.abc import Iterator

import numpy as np

from train.run.evaluation import CALIBRATION_BINS, AnyEvaluation, Evaluation

__all__ = ["LEVEL", "intervals"]

LEVEL = 0.95
_RESAMPLES = 1000
_AT_ONCE = 2**22  # Counts in memory, 32 MiB.

Interval = tuple[float, float]


def intervals(
    evaluation: AnyEvaluation, *, resamples: int = _RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """95 % intervals of an evaluation's figures, by their names in `figures`.

    The images are drawn again, as many, with replacement; an interval holds the middle
    95 % of the figures of such draws: the percentile bootstrap of Efron and Tibshirani
    1993, "An introduction to the bootstrap", section 13.3. It is what the choice of
    test images leaves open, not the seed of the training. A class that no draw has does
    not count in that draw's balanced accuracy.

    Args:
      evaluation: the evaluation. With several classes per image, the intervals are
        those of loss and accuracy.
      resamples: number of draws.
      seed: of the draws.
    """
    draws: dict[str, list[np.ndarray]] = {}
    for counts in _counts(len(evaluation.label), resamples, seed):
        for name, values in _figures(evaluation, counts).items():
            draws.setdefault(name, []).append(values)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {
        name: tuple(np.quantile(np.concatenate(parts), tails).tolist())
        for name, parts in draws.items()
    }


def _counts(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is in each draw, int `[r, n]`, some draws at a time."""
    rng = np.random.default_rng(seed)
    at_once = max(_AT_ONCE // images, 1)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = rng.integers(0, images, (count, images))
        yield np.stack([np.bincount(row, minlength=images) for row in drawn])


def _figures(evaluation: AnyEvaluation, counts: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of each draw, float `[r]`."""
    images = counts.shape[1]
    loss = evaluation.loss.astype(np.float64)
    if not isinstance(evaluation, Evaluation):
        right = (evaluation.prediction == evaluation.label).all(axis=1)
        return {"loss": counts @ loss / images, "accuracy": counts @ right / images}
    right = evaluation.prediction == evaluation.label
    confidence = evaluation.confidence.astype(np.float64)
    bins = np.clip(
        np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1
    )
    of_class = _sums(counts, evaluation.label)
    with np.errstate(invalid="ignore"):
        recall = _sums(counts * right, evaluation.label) / of_class
    return {
        "loss": counts @ loss / images,
        "accuracy": counts @ right / images,
        "top5_accuracy": counts @ (evaluation.rank < 5) / images,
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "calibration_error": (
            np.abs(_sums(counts * (confidence - right), bins)).sum(axis=1) / images
        ),
    }


def _sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums of each row of values `[r, n]` over the groups of columns, `[r, G]`."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return np.add.reduceat(values[:, order], starts, axis=1)
