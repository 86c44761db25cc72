"""What is known of a Noisy Student when it has ended: the numbers of its report."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.data.pseudo_label_file import predictions

__all__ = ["BINS", "Example", "Summary", "Labelled", "Round", "Trained", "count_labels"]

# Of a histogram of confidence: each 5 % wide.
BINS = 20
_EXAMPLES = 12  # Of a kind.


@dataclass(frozen=True)
class Trained:
    """A model that learned.

    Attributes:
      stage: its run's folder, such as `round1/student`.
      model: its name.
      parameters: their number.
      image_size: what it was judged at, in pixels.
      accuracy: share of the images of the split that it is right about.
      loss: mean negative log probability of their labels, in nats.
      calibration_error: how far its confidence is from its accuracy, in [0, 1].
      steps: of its training.
      seconds: of its training.
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
      index: of the image among the unlabelled ones.
      name: the image's.
      predicted: the most probable class.
      confidence: its probability.
      true: the class, or None where it is not known.
    """

    index: int
    name: str
    predicted: int
    confidence: float
    true: int | None


@dataclass(frozen=True)
class Labelled:
    """The pseudo-labels of a round; a class is that of the highest probability.

    Attributes:
      stage: their file, such as `round1/labels.npy`.
      teacher: the stage of the model that gave them.
      images: number of unlabelled images that could be read.
      unreadable: number of the others.
      kept: number of images that the student learns from.
      duplicates: how often one of them comes again, to fill a class up.
      accuracy: share of all images with the right class; None where it is not known.
      kept_accuracy: the same of the kept ones, each counted once.
      histogram: images by confidence, in `BINS` bins of equal width over [0, 1].
      histogram_right: those of them with the right class, or None.
      before: images by class, `[K]`.
      kept_classes: kept images by class, `[K]`.
      after: the same with the duplicates, `[K]`.
      true: images by true class, `[K]`, or None.
      examples: some kept images: drawn from those with the right class, then of those
        with a wrong one the surest of each pair of classes, the surest first; drawn
        from all where it is not known.
      seconds: that labelling took, since it was last started; None where it was
        stopped right at its end.
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
class Round:
    """Pseudo-labels, and the student that learned from them."""

    labels: Labelled
    student: Trained


@dataclass(frozen=True)
class Summary:
    """A Noisy Student that has ended.

    Attributes:
      recipe: its recipe's name.
      command: what makes it.
      data: the labelled images' source.
      unlabelled: the others'.
      labels: number of labelled images.
      split: what the images that models are judged on are called.
      test_images: their number.
      class_names: K names.
      min_confidence: of a pseudo-label that is kept.
      per_class: images a class after balancing; 0 for none.
      kind: of the pseudo-labels, soft or hard.
      settings: each flag's name, without its dashes, and its value.
      versions: of the packages.
      machine: that it ran on.
      teacher: the first model, which learned from labels alone.
      rounds: each with a student, which is the next one's teacher.
      final: the last student after its fine-tuning, or None.
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
    teacher: Trained
    rounds: list[Round]
    final: Trained | None

    @property
    def models(self) -> list[Trained]:
        """All models, in the order in which they learned."""
        students = [each.student for each in self.rounds]
        return [self.teacher, *students, *([self.final] if self.final else [])]

    @property
    def roles(self) -> list[str]:
        """What each model is called: the teacher, student 1, ..."""
        students = [f"student {number}" for number, _ in enumerate(self.rounds, 1)]
        return ["the teacher", *students, *(["fine-tuned"] if self.final else [])]

    @property
    def seconds(self) -> float:
        """Of all training and labelling."""
        parts = [*self.models, *(each.labels for each in self.rounds)]
        return sum(part.seconds or 0 for part in parts)

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON holds them."""
        return dataclasses.asdict(self)


def count_labels(
    probabilities: np.ndarray,
    chosen: np.ndarray,
    *,
    stage: str,
    teacher: str,
    readable: np.ndarray,
    true: np.ndarray | None,
    name: Callable[[int], str],
    seconds: float | None = None,
    seed: int = 0,
) -> Labelled:
    """What there is to say of a round's pseudo-labels.

    Args:
      probabilities: of the unlabelled images, `[n, K]`; read a part at a time.
      chosen: the images that the student learns from, int `[m]`, with duplicates.
      stage: see `Labelled`.
      teacher: see `Labelled`.
      readable: which images could be read, bool `[n]`.
      true: their classes, int `[n]`, or None where they are not known.
      name: of the image at an index.
      seconds: see `Labelled`.
      seed: draws the examples.
    """
    predicted, confidence = predictions(probabilities)
    classes = probabilities.shape[1]
    kept = np.unique(chosen)
    right = None if true is None else predicted == true

    def by_class(labels: np.ndarray) -> list[int]:
        return np.bincount(labels, minlength=classes).tolist()

    def by_confidence(which: np.ndarray) -> list[int]:
        bins = np.minimum((confidence[which] * BINS).astype(int), BINS - 1)
        return np.bincount(bins, minlength=BINS).tolist()

    def example(i: int) -> Example:
        label = None if true is None else int(true[i])
        return Example(i, name(i), int(predicted[i]), float(confidence[i]), label)

    draw = np.random.default_rng(seed).permutation(kept)
    if true is None or right is None:
        shown = draw[:_EXAMPLES]
    else:
        wrong = kept[~right[kept]]
        wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
        pairs = np.stack([predicted[wrong], true[wrong]])
        firsts = np.sort(np.unique(pairs, axis=1, return_index=True)[1])
        shown = [*draw[right[draw]][:_EXAMPLES], *wrong[firsts][:_EXAMPLES]]
    return Labelled(
        stage=stage,
        teacher=teacher,
        images=int(readable.sum()),
        unreadable=int((~readable).sum()),
        kept=len(kept),
        duplicates=len(chosen) - len(kept),
        accuracy=_mean(right, readable),
        kept_accuracy=_mean(right, kept),
        histogram=by_confidence(readable),
        histogram_right=None if right is None else by_confidence(readable & right),
        before=by_class(predicted[readable]),
        kept_classes=by_class(predicted[kept]),
        after=by_class(predicted[chosen]),
        true=None if true is None else by_class(true[readable]),
        examples=[example(int(i)) for i in shown],
        seconds=seconds,
    )


def _mean(right: np.ndarray | None, which: np.ndarray) -> float | None:
    return float(right[which].mean()) if right is not None and len(which) else None
