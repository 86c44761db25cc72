"""Summary of a completed Noisy Student: the figures of its report."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.data.pseudo_label_file import predictions

__all__ = [
    "BINS",
    "Example",
    "LabelSummary",
    "ModelSummary",
    "RoundSummary",
    "Summary",
    "summarize_labels",
]

BINS = 20  # Bins of a histogram of confidence, each 5 % wide.
_EXAMPLES = 12  # Examples per kind.


@dataclass(frozen=True)
class ModelSummary:
    """A trained model.

    Attributes:
      stage: its run's folder, such as `round1/student`.
      model: its name.
      parameters: number of its parameters.
      image_size: height and width of its input in evaluation, in pixels.
      accuracy: accuracy on the images of the split, in [0, 1].
      loss: mean negative log probability of their labels, in nats.
      calibration_error: expected calibration error, in [0, 1].
      steps: training steps.
      seconds: training time.
    """

    stage: str
    model: str
    parameters: int
    image_size: int
    accuracy: float
    loss: float
    calibration_error: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class Example:
    """An image and its pseudo-label.

    Attributes:
      index: index of the image among the unlabelled ones.
      name: name of the image.
      predicted: the most probable class.
      confidence: probability of that class.
      true: the true class, or None if it is unknown.
    """

    index: int
    name: str
    predicted: int
    confidence: float
    true: int | None


@dataclass(frozen=True)
class LabelSummary:
    """The pseudo-labels of a round; a label's class is its most probable one.

    Attributes:
      stage: the file of pseudo-labels, such as `round1/labels.npy`.
      teacher: name of the stage that trained the labelling model.
      images: number of unlabelled images that could be read.
      unreadable: number of unlabelled images that could not be read.
      kept: number of distinct images that the student is trained on.
      duplicates: number of duplicates among its images, which fill up small classes.
      accuracy: share of all images with the correct class; None if it is unknown.
      kept_accuracy: same for the kept images, each counted once.
      histogram: images by confidence, in `BINS` bins of equal width over [0, 1].
      histogram_right: same for the images with the correct class, or None.
      before: images per class, `[K]`.
      kept_classes: kept images per class, `[K]`.
      after: same with the duplicates, `[K]`.
      true: images per true class, `[K]`, or None.
      examples: some kept images: a random sample of the correct ones; then the most
        confident wrong one of each pair of classes, by descending confidence. If the
        true classes are unknown, a random sample of all.
      seconds: labelling time since the last start; None if labelling was interrupted
        right at its end.
    """

    stage: str
    teacher: str
    images: int
    unreadable: int
    kept: int
    duplicates: int
    accuracy: float | None
    kept_accuracy: float | None
    histogram: list[int]
    histogram_right: list[int] | None
    before: list[int]
    kept_classes: list[int]
    after: list[int]
    true: list[int] | None
    examples: list[Example]
    seconds: float | None


@dataclass(frozen=True)
class RoundSummary:
    """Pseudo-labels, and the student that was trained on them."""

    labels: LabelSummary
    student: ModelSummary


@dataclass(frozen=True)
class Summary:
    """A completed Noisy Student.

    Attributes:
      recipe: name of its recipe.
      command: the command to reproduce it.
      data: source of the labelled images.
      unlabelled: source of the unlabelled images.
      labels: number of labelled images.
      split: name of the split that the models are evaluated on.
      test_images: number of images in that split.
      class_names: K names.
      min_confidence: confidence above which pseudo-labels are kept.
      per_class: images per class after balancing; 0 for no balancing.
      kind: kind of the pseudo-labels, soft or hard.
      settings: values of the flags, by name without dashes.
      versions: versions of the packages.
      machine: the machine that it ran on.
      teacher: the first model, trained on the labelled images alone.
      rounds: the rounds; the student of each is the teacher of the next.
      final: the last student after fine-tuning, or None.
    """

    recipe: str
    command: str
    data: str
    unlabelled: str
    labels: int
    split: str
    test_images: int
    class_names: list[str]
    min_confidence: float
    per_class: int
    kind: str
    settings: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    teacher: ModelSummary
    rounds: list[RoundSummary]
    final: ModelSummary | None

    @property
    def models(self) -> list[ModelSummary]:
        """All models, in the order of training."""
        students = [each.student for each in self.rounds]
        return [self.teacher, *students, *([self.final] if self.final else [])]

    @property
    def roles(self) -> list[str]:
        """Role of each model: the teacher, student 1, ..."""
        students = [f"student {number}" for number, _ in enumerate(self.rounds, 1)]
        return ["the teacher", *students, *(["fine-tuned"] if self.final else [])]

    @property
    def seconds(self) -> float:
        """Total time of training and labelling."""
        parts = [*self.models, *(each.labels for each in self.rounds)]
        return sum(part.seconds or 0 for part in parts)

    def to_json(self) -> dict[str, Any]:
        """The summary as a tree for JSON."""
        return dataclasses.asdict(self)


def summarize_labels(
    probabilities: np.ndarray,
    selected: np.ndarray,
    *,
    stage: str,
    teacher: str,
    readable: np.ndarray,
    true: np.ndarray | None,
    name: Callable[[int], str],
    seconds: float | None = None,
    seed: int = 0,
) -> LabelSummary:
    """Summarizes the pseudo-labels of a round.

    Args:
      probabilities: probabilities of the unlabelled images, `[n, K]`; read in chunks.
      selected: indices of the student's images, int `[m]`, with duplicates.
      stage: see `LabelSummary`.
      teacher: see `LabelSummary`.
      readable: which images could be read, bool `[n]`.
      true: true classes of the images, int `[n]`, or None if they are unknown.
      name: index -> name of the image.
      seconds: see `LabelSummary`.
      seed: seed of the random examples.
    """
    predicted, confidence = predictions(probabilities)
    classes = probabilities.shape[1]
    kept = np.unique(selected)
    correct = None if true is None else predicted == true

    def by_class(labels: np.ndarray) -> list[int]:
        return np.bincount(labels, minlength=classes).tolist()

    def by_confidence(which: np.ndarray) -> list[int]:
        bins = np.minimum((confidence[which] * BINS).astype(int), BINS - 1)
        return np.bincount(bins, minlength=BINS).tolist()

    def example(i: int) -> Example:
        label = None if true is None else int(true[i])
        return Example(i, name(i), int(predicted[i]), float(confidence[i]), label)

    shuffled = np.random.default_rng(seed).permutation(kept)
    if true is None or correct is None:
        shown = shuffled[:_EXAMPLES]
    else:
        wrong = kept[~correct[kept]]
        wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
        pairs = np.stack([predicted[wrong], true[wrong]])
        firsts = np.sort(np.unique(pairs, axis=1, return_index=True)[1])
        shown = [*shuffled[correct[shuffled]][:_EXAMPLES], *wrong[firsts][:_EXAMPLES]]
    return LabelSummary(
        stage=stage,
        teacher=teacher,
        images=int(readable.sum()),
        unreadable=int((~readable).sum()),
        kept=len(kept),
        duplicates=len(selected) - len(kept),
        accuracy=_share(correct, readable),
        kept_accuracy=_share(correct, kept),
        histogram=by_confidence(readable),
        histogram_right=None if correct is None else by_confidence(readable & correct),
        before=by_class(predicted[readable]),
        kept_classes=by_class(predicted[kept]),
        after=by_class(predicted[selected]),
        true=None if true is None else by_class(true[readable]),
        examples=[example(int(i)) for i in shown],
        seconds=seconds,
    )


def _share(correct: np.ndarray | None, which: np.ndarray) -> float | None:
    return float(correct[which].mean()) if correct is not None and len(which) else None
