"""Evaluation of a model on a data set."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from train.run.multi_label import MultiLabelEvaluation

__all__ = ["CALIBRATION_BINS", "AnyEvaluation", "Evaluation", "evaluate"]

CALIBRATION_BINS = 15


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
            "balanced_accuracy": self.balanced_accuracy(),
        }

    def balanced_accuracy(self) -> float:
        """The mean accuracy (recall) of the classes that have images.

        It is scikit-learn's `balanced_accuracy_score`: a frequent class counts as much
        as a rare one.
        """
        return float(np.nanmean(self.class_accuracy(int(self.label.max()) + 1)))

    def class_accuracy(self, classes: int) -> np.ndarray:
        """Accuracy (recall) per class: `[K]`, NaN for a class without images."""
        images = np.bincount(self.label, minlength=classes)
        right = self.label[self.label == self.prediction]
        with np.errstate(invalid="ignore"):
            return np.bincount(right, minlength=classes) / images

    def calibration_error(self, bins: int = CALIBRATION_BINS) -> float:
        """The expected calibration error, in [0, 1]; 0 is perfect.

        It is the mean over all images of `|accuracy - mean confidence|` of their bin of
        `reliability`: Guo et al. 2017, "On calibration of modern neural networks",
        https://arxiv.org/abs/1706.04599, equation 5.
        """
        counts, confidence, accuracy = self.reliability(bins)
        filled = counts > 0
        gaps = np.abs(accuracy - confidence)[filled] * counts[filled]
        return float(gaps.sum() / counts.sum())

    def reliability(
        self, bins: int = CALIBRATION_BINS
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Accuracy and confidence of images of like confidence.

        Images are put into bins of equal width by their confidence, `(k / bins,
        (k + 1) / bins]`.

        Returns:
          Per bin: the number of images, int `[bins]`; their mean confidence and their
          accuracy, float `[bins]`, NaN for a bin without images.
        """
        confidence = self.confidence.astype(np.float64)
        bin_ = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        correct = self.prediction == self.label
        counts = np.bincount(bin_, minlength=bins)
        with np.errstate(invalid="ignore"):
            return (
                counts,
                np.bincount(bin_, confidence, minlength=bins) / counts,
                np.bincount(bin_, correct, minlength=bins) / counts,
            )

    def worst(self, count: int) -> np.ndarray:
        """Rows whose labels have the lowest probability, worst first: int `[count]`."""
        return np.argsort(-self.loss, kind="stable")[:count]

    def least_sure(self, count: int, *, without: np.ndarray) -> np.ndarray:
        """Rows with the lowest confidence, least first, but for some: int `[count]`."""
        order = np.argsort(self.confidence, kind="stable")
        return order[~np.isin(order, without)][:count]

    def confusion(self, classes: int) -> np.ndarray:
        """Number of images by label (row) and prediction (column): int `[K, K]`."""
        cells = self.label * classes + self.prediction
        return np.bincount(cells, minlength=classes**2).reshape(classes, classes)

    def mistakes(self, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Label, prediction and number of images, int `[n]`, where these two differ.

        Most frequent first, and in the order of the classes where equally frequent.
        """
        is_wrong = self.label != self.prediction
        cells = self.label[is_wrong] * classes + self.prediction[is_wrong]
        cells, counts = np.unique(cells, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        label, prediction = np.divmod(cells[order], classes)
        return label, prediction, counts[order]


AnyEvaluation = Evaluation | MultiLabelEvaluation


def evaluate(
    eval_step: Callable[[Any, Any], dict[str, jax.Array]],
    variables: Any,
    batches: Iterable[Mapping[str, Any]],
) -> AnyEvaluation:
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
    kind = MultiLabelEvaluation if rows["label"].ndim == 2 else Evaluation
    return kind(**{key: row[is_image] for key, row in rows.items()})
