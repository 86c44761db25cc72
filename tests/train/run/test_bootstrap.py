import numpy as np
import pytest
from scipy.stats import bootstrap

from train.run.bootstrap import intervals
from train.run.evaluation import Evaluation
from train.run.multi_label import MultiLabelEvaluation

IMAGES = 300


@pytest.fixture(scope="module")
def evaluation():
    """Uneven classes, and confidences that are too high."""
    rng = np.random.default_rng(0)
    label = rng.choice(4, IMAGES, p=[0.5, 0.3, 0.15, 0.05])
    wrong = rng.random(IMAGES) < 0.1 + 0.1 * label
    return Evaluation(
        index=np.arange(IMAGES),
        label=label,
        prediction=np.where(wrong, (label + 1) % 4, label),
        confidence=rng.uniform(0.7, 1, IMAGES),
        rank=wrong * rng.integers(1, 8, IMAGES),
        loss=rng.exponential(size=IMAGES),
    )


def figures_of(evaluation, rows):
    part = Evaluation(**{k: v[rows] for k, v in vars(evaluation).items()})
    return {**part.figures(), "calibration_error": part.calibration_error()}


def test_intervals_are_scipys(evaluation):
    ours = intervals(evaluation, resamples=4000)
    for name, (low, high) in ours.items():
        found = bootstrap(
            (np.arange(IMAGES),),
            lambda rows, name=name: figures_of(evaluation, rows)[name],
            n_resamples=500,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(1),
        )
        spread = high - low
        assert abs(low - found.confidence_interval.low) < 0.15 * spread
        assert abs(high - found.confidence_interval.high) < 0.15 * spread
        assert low <= figures_of(evaluation, slice(None))[name] <= high or (
            name == "calibration_error"  # It is biased upwards.
        )
    assert set(ours) == set(figures_of(evaluation, slice(None)))


def test_intervals_follow_from_the_seed_and_not_from_the_memory(
    evaluation, monkeypatch
):
    found = intervals(evaluation, resamples=50)
    assert found == intervals(evaluation, resamples=50)
    assert found != intervals(evaluation, resamples=50, seed=1)
    monkeypatch.setattr("train.run.bootstrap._AT_ONCE", 7 * IMAGES)
    assert found == intervals(evaluation, resamples=50)


def test_a_rare_class_may_miss_from_a_draw():
    label = np.array([0] * 20 + [1])
    one = Evaluation(
        index=np.arange(21),
        label=label,
        prediction=label,
        confidence=np.ones(21),
        rank=np.zeros(21, int),
        loss=np.zeros(21),
    )
    assert intervals(one)["balanced_accuracy"] == (1, 1)


def test_several_classes_per_image_have_intervals_of_loss_and_accuracy():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, (50, 3))
    probability = np.clip(label + rng.normal(0, 0.4, (50, 3)), 0.01, 0.99)
    loss = rng.exponential(size=50)
    several = MultiLabelEvaluation(np.arange(50), label, probability, loss)
    found = intervals(several)
    assert set(found) == {"loss", "accuracy"}
    for name, (low, high) in found.items():
        assert low < several.figures()[name] < high
