"""Evaluation of a model on images with any number of classes each."""

from dataclasses import dataclass

import numpy as np

__all__ = ["MultiLabelEvaluation"]

_BINS = 15


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """The results per image, each image once, in the order of the data set.

    Attributes:
      index: the image's index in the data set, int `[n]`.
      label: 1 for the classes of the image and 0 for others, `[n, K]`.
      probability: probability of each class, float `[n, K]`.
      loss: mean over the classes of the negative log probability of what they are, the
        image's or not, in nats, float `[n]`.
    """

    index: np.ndarray
    label: np.ndarray
    probability: np.ndarray
    loss: np.ndarray

    @property
    def prediction(self) -> np.ndarray:
        """Which classes have a probability above one half, bool `[n, K]`."""
        return self.probability > 0.5

    def figures(self) -> dict[str, float]:
        """Figures over all images, by their names in `metrics.jsonl`.

        `accuracy` is the share of the images whose classes are all right, and no other
        one is taken. `mean_average_precision` is the mean over the classes that images
        have; NaN if there are none.
        """
        precision = self.average_precision()
        is_known = ~np.isnan(precision)
        return {
            "loss": float(self.loss.mean(dtype=np.float64)),
            "accuracy": float((self.prediction == self.label).all(axis=1).mean()),
            "mean_average_precision": (
                float(precision[is_known].mean()) if is_known.any() else np.nan
            ),
        }

    def average_precision(self) -> np.ndarray:
        """Average precision of each class: float `[K]`, NaN where no image has it.

        Images are ranked by the class's probability; it is the precision down to each
        image of the class, averaged over these, scikit-learn's
        `average_precision_score`.
        """
        from sklearn.metrics import average_precision_score

        found = np.full(self.label.shape[1], np.nan)
        for k in np.flatnonzero(self.label.any(axis=0)):
            found[k] = average_precision_score(self.label[:, k], self.probability[:, k])
        return found

    def precision_and_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall of the prediction, per class: float `[K]`.

        Precision is NaN where the class is never taken, recall where no image has it.
        """
        is_label = self.label > 0.5
        right = (is_label & self.prediction).sum(axis=0)
        with np.errstate(invalid="ignore"):
            return right / self.prediction.sum(axis=0), right / is_label.sum(axis=0)

    def calibration_error(self) -> float:
        """The expected calibration error, in [0, 1]; 0 is perfect.

        The probabilities of all images and classes are put into 15 bins of equal width;
        it is the mean of `|share of the classes that the image has - mean probability|`
        of their bins.
        """
        probability = self.probability.ravel().astype(np.float64)
        bin_ = np.clip(np.ceil(probability * _BINS).astype(int) - 1, 0, _BINS - 1)
        gaps = np.bincount(bin_, self.label.ravel() - probability, minlength=_BINS)
        return float(np.abs(gaps).sum() / len(probability))

    def worst(self, count: int) -> np.ndarray:
        """Rows with the largest loss, worst first: int `[count]`."""
        return np.argsort(-self.loss, kind="stable")[:count]
