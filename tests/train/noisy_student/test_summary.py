import json

import numpy as np

from tests.support.noisy_student import label_summary, make_summary
from train.noisy_student.summary import BINS, summarize_labels

LABELS = label_summary(1)


def test_counts_agree_with_hand_counts():
    assert (LABELS.images, LABELS.unreadable) == (9, 1)
    assert (LABELS.kept, LABELS.duplicates) == (8, 1)
    assert LABELS.before == [3, 4, 2]
    assert LABELS.kept_classes == [3, 3, 2]
    assert LABELS.after == [3, 3, 3]
    assert LABELS.true == [3, 2, 4]


def test_correct_labels_are_counted_once_per_image():
    # Images 0, 1, 3, 4, 5, 7 of 0 to 8 are correct; image 8 is not kept.
    assert LABELS.accuracy == 6 / 9
    assert LABELS.kept_accuracy == 6 / 8


def test_the_histogram_has_every_readable_image_in_its_bin():
    def bins(*confidences):
        found = np.zeros(BINS, int)
        for confidence in confidences:
            found[min(int(np.float32(confidence) * BINS), BINS - 1)] += 1
        return found.tolist()

    correct = (0.9, 0.8, 0.6, 0.5, 0.4, 1.0)
    assert LABELS.histogram_right == bins(*correct)
    assert LABELS.histogram == bins(*correct, 0.7, 0.96, 0.34)


def test_examples_are_kept_images_and_the_most_confident_mistakes():
    correct = [e for e in LABELS.examples if e.true == e.predicted]
    wrong = [e for e in LABELS.examples if e.true != e.predicted]
    assert LABELS.examples == correct + wrong
    assert sorted(e.index for e in correct) == [0, 1, 3, 4, 5, 7]
    assert [(e.index, e.predicted, e.true) for e in wrong] == [(6, 0, 2), (2, 1, 0)]
    assert wrong[0].name == "image 6"
    np.testing.assert_allclose(wrong[0].confidence, 0.96)


def test_a_confusion_is_shown_once_at_its_most_confident():
    confidence = np.array([0.6, 0.9, 0.8, 0.7], np.float32)
    predicted, true = np.array([0, 0, 1, 0]), np.array([1, 1, 0, 1])
    rows = np.full((4, 2), 0.0, np.float32)
    rows[range(4), predicted] = confidence
    rows[range(4), 1 - predicted] = 1 - confidence
    labels = summarize_labels(
        rows,
        np.arange(4),
        stage="",
        teacher="",
        readable=np.ones(4, bool),
        true=true,
        name=str,
    )
    assert [example.index for example in labels.examples] == [1, 2]


def test_without_true_classes_nothing_is_called_correct():
    labels = label_summary(1, known=False)
    assert labels.accuracy is labels.kept_accuracy is None
    assert labels.histogram_right is labels.true is None
    assert sorted(e.index for e in labels.examples) == list(range(8))
    assert {e.true for e in labels.examples} == {None}
    assert labels.histogram == LABELS.histogram


def test_the_same_labels_give_the_same_summary():
    assert label_summary(1) == LABELS


def test_the_models_are_in_the_order_of_training():
    summary = make_summary()
    assert [model.stage for model in summary.models] == [
        "round0/teacher",
        "round1/student",
        "round2/student",
        "final",
    ]
    assert len(make_summary(final=None).models) == 3
    assert summary.seconds == 4 * 90 + 2 * 12


def test_json_holds_the_whole_summary():
    summary = make_summary()
    tree = json.loads(json.dumps(summary.to_json()))
    assert tree["rounds"][1]["student"]["accuracy"] == 0.7125
    assert tree["rounds"][0]["labels"]["examples"][-1]["true"] == 0
    assert tree["final"]["model"] == "resnet50"
