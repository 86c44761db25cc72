import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from train.data import eval_batches, open_source
from train.run.evaluation import Evaluation, evaluate


@pytest.fixture
def five():
    """Five images of three classes; the third class has none."""
    return Evaluation(
        index=np.arange(5),
        label=np.array([0, 0, 0, 1, 1]),
        prediction=np.array([0, 0, 2, 1, 0]),
        confidence=np.full(5, 0.5, np.float32),
        rank=np.array([0, 0, 6, 0, 1]),
        loss=np.array([1, 2, 3, 4, 5], np.float32),
    )


def test_figures_by_hand(five):
    assert five.figures() == {
        "loss": 3.0,
        "accuracy": 0.6,
        "top5_accuracy": 0.8,
        "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
    }


def test_balanced_accuracy_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 4], 200, p=[0.9, 0.08, 0.02])
    prediction = np.where(rng.random(200) < 0.6, label, rng.integers(5, size=200))
    nothing = np.zeros(200)
    found = Evaluation(nothing, label, prediction, nothing, nothing, nothing)
    expected = sklearn.metrics.recall_score(
        label, prediction, average="macro", labels=[0, 1, 4]
    )
    np.testing.assert_allclose(found.balanced_accuracy(), expected, rtol=1e-12)


def test_the_confusion_matrix_counts_labels_in_rows(five):
    np.testing.assert_array_equal(five.confusion(3), [[2, 0, 1], [1, 1, 0], [0, 0, 0]])


def test_a_class_without_images_has_no_accuracy(five):
    np.testing.assert_allclose(five.class_accuracy(3), [2 / 3, 1 / 2, np.nan])


def test_the_calibration_error_by_hand(five):
    # Confidence 0.5 is in one bin with accuracy 3 / 5.
    assert five.calibration_error() == pytest.approx(0.1)
    # In two bins, (0, 1/2] and (1/2, 1]: 0.2 and 0.5 with one of two right, a gap of
    # 0.15; 0.6, 0.9 and 1.0 with two of three right, a gap of 1/6.
    spread = dataclasses.replace(
        five, confidence=np.array([0.2, 0.6, 0.5, 0.9, 1.0], np.float32)
    )
    expected = (2 * 0.15 + 3 * (2.5 - 2) / 3) / 5
    assert spread.calibration_error(bins=2) == pytest.approx(expected)
    # Each in its own bin of 15: |1 - .2|, |1 - .6|, |0 - .5|, |1 - .9|, |0 - 1|.
    assert spread.calibration_error() == pytest.approx((0.8 + 0.4 + 0.5 + 0.1 + 1) / 5)


@pytest.mark.parametrize("batch_size", [1, 64, 359, 500])
def test_every_image_counts_once_with_any_batch_size(batch_size):
    source = open_source("digits", "test")
    assert source.images is not None
    batches = eval_batches(source, batch_size=batch_size, image_size=8, channels=1)

    def eval_step(variables, batch):
        guess = batch["image"].sum(axis=(1, 2, 3)) % 10
        return {
            "label": batch["label"],
            "mask": batch["mask"],
            "prediction": guess,
            "confidence": guess / 10,
            "rank": (guess != batch["label"]).astype(int),
            "loss": guess / 10,
        }

    found = evaluate(eval_step, None, batches)
    sums = source.images.sum(axis=(1, 2, 3)) % 10
    np.testing.assert_array_equal(found.index, np.arange(len(source)))
    np.testing.assert_array_equal(found.label, source.labels)
    np.testing.assert_array_equal(found.prediction, sums)
    expected = {
        "loss": np.mean(sums / 10),
        "accuracy": np.mean(sums == source.labels),
        "top5_accuracy": 1.0,
        "balanced_accuracy": np.mean(
            [np.mean(sums[source.labels == label] == label) for label in range(10)]
        ),
    }
    assert found.figures() == pytest.approx(expected, rel=1e-12)


def test_an_unreadable_image_is_not_counted():
    batch = {"index": np.arange(3)}
    rows = {
        "mask": [1, 0, 1],
        "label": [1, 1, 1],
        "prediction": [1, 0, 0],
        "confidence": [0.9, 0.9, 0.9],
        "rank": [0, 1, 1],
        "loss": [0.5, 100.0, 1.5],
    }
    rows = {name: jnp.asarray(row) for name, row in rows.items()}
    found = evaluate(lambda variables, batch: rows, None, [batch])
    figures = {"loss": 1.0, "accuracy": 0.5, "top5_accuracy": 1.0}
    assert found.figures() == {**figures, "balanced_accuracy": 0.5}


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(ValueError, match="no images to evaluate"):
        evaluate(lambda variables, batch: {}, None, [])
