"""Evaluation of a model on a data set."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """The results per image, each image once, in the order of the data set.

    Attributes:
      index: the image's index in the data set, int `[n]`.
      label: its class, int `[n]`.
      prediction: the most probable class, int `[n]`.
      confidence: the probability of the prediction, float `[n]`.
      rank: number of classes that are more probable than the label, int `[n]`.
      loss: negative log probability of the label, in nats, float `[n]`.
    """

    index: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray
    rank: np.ndarray
    loss: np.ndarray

    def figures(self) -> dict[str, float]:
        """Means over all images, by their names in `metrics.jsonl`.

        The loss is summed in float64, so that it does not depend on the batch size.
        """
        return {
            "loss": float(self.loss.mean(dtype=np.float64)),
            "accuracy": float(np.mean(self.prediction == self.label)),
            "top5_accuracy": float(np.mean(self.rank < 5)),
        }

    def class_accuracy(self, classes: int) -> np.ndarray:
        """Accuracy per class: `[K]`, NaN for a class without images."""
        confusion = self.confusion(classes)
        with np.errstate(invalid="ignore"):
            return confusion.diagonal() / confusion.sum(axis=1)

    def calibration_error(self, bins: int = 15) -> float:
        """The expected calibration error, in [0, 1]; 0 is perfect.

        Images are put into bins of equal width by their confidence, `(k / bins,
        (k + 1) / bins]`. The error is the mean over all images of `|accuracy - mean
        confidence|` of their bin: Guo et al. 2017, "On calibration of modern
        neural networks", https://arxiv.org/abs/1706.04599, equation 5.
        """
        confidence = self.confidence.astype(np.float64)
        bin_ = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        gap = (self.prediction == self.label) - confidence
        return float(np.abs(np.bincount(bin_, gap)).sum() / len(gap))

    def confusion(self, classes: int) -> np.ndarray:
        """Number of images by label (row) and prediction (column): int `[K, K]`."""
        cells = self.label * classes + self.prediction
        return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def evaluate(
    eval_step: Callable[[Any, Any], dict[str, jax.Array]],
    variables: Any,
    batches: Iterable[Mapping[str, Any]],
) -> Evaluation:
    """Evaluates a model.

    Args:
      eval_step: compiled from `train.learn.step.make_eval_step`.
      variables: the model's variables.
      batches: batches from `train.data.eval_batches`, on the devices.

    Raises:
      ValueError: if there are no images.
    """
    parts = []
    for batch in batches:
        parts.append({"index": batch["index"], **eval_step(variables, batch)})
        if len(parts) > 1:  # Fetch a batch while the device runs the next one.
            parts[-2] = jax.device_get(parts[-2])
    if not parts:
        raise ValueError("There are no images to evaluate.")
    rows = {
        key: np.concatenate([np.asarray(p[key]) for p in parts]) for key in parts[0]
    }
    is_image = rows.pop("mask") > 0
    return Evaluation(**{key: row[is_image] for key, row in rows.items()})
