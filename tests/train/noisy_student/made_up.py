"""A Noisy Student that was not run: made-up numbers that fit together."""

import numpy as np

from train.noisy_student.summary import Round, Summary, Trained, count_labels

NAMES = ["ant", "<bee>", "cat"]
CLASSES = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
# Six are right; image 9 cannot be read.
PREDICTED = np.array([0, 0, 1, 1, 1, 2, 0, 2, 1, 0])
CONFIDENCE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.96, 1.0, 0.34, np.nan])
READABLE = ~np.isnan(CONFIDENCE)
# Class 0: images 0, 1, 6; class 1: 2, 3, 4; class 2: 5, 7, 7.
CHOSEN = np.array([0, 1, 2, 3, 4, 5, 6, 7, 7])


def probabilities():
    rows = np.zeros((10, 3), np.float32)
    for row, k, confidence in zip(rows, PREDICTED, CONFIDENCE, strict=True):
        row[:] = (1 - confidence) / 2
        row[k] = confidence
    return rows


def read(index):
    return np.full((8, 6, 1), 25 * index, np.uint8)


def labelled(number, known=True):
    return count_labels(
        probabilities(),
        CHOSEN,
        stage=f"round{number}/labels.npy",
        teacher="somebody",
        readable=READABLE,
        true=CLASSES if known else None,
        name="image {}".format,
        seconds=12.0,
    )


def trained(stage, model, accuracy):
    return Trained(stage, model, 1234, 28, accuracy, 0.5, 0.0625, 300, 90.0)


def make_facts(known=True, **changes):
    fields = {
        "recipe": "made_up",
        "command": "python -m train noisy-student made_up",
        "data": "idx:<here>",
        "unlabelled": "rest",
        "labels": 30,
        "split": "test",
        "test_images": 4321,
        "class_names": NAMES,
        "min_confidence": 0.35,
        "per_class": 3,
        "kind": "soft",
        "settings": {"learning_rate": 0.125, "model_fields": {"width": 8}},
        "versions": {"jax": "0.10"},
        "machine": {"device": "cpu"},
        "teacher": trained("round0/teacher", "resnet18", 0.5125),
        "rounds": [
            Round(labelled(1, known), trained("round1/student", "resnet34", 0.6125)),
            Round(labelled(2, known), trained("round2/student", "resnet50", 0.7125)),
        ],
        "final": trained("final", "resnet50", 0.7375),
    }
    return Summary(**{**fields, **changes})
