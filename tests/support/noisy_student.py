"""The summary of a made-up Noisy Student, whose figures agree with each other."""

import numpy as np

from train.noisy_student.summary import (
    ModelSummary,
    RoundSummary,
    Summary,
    summarize_labels,
)

NAMES = ["ant", "<bee>", "cat"]
CLASSES = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
# Six are correct; image 9 is unreadable.
PREDICTED = np.array([0, 0, 1, 1, 1, 2, 0, 2, 1, 0])
CONFIDENCE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.96, 1.0, 0.34, np.nan])
READABLE = ~np.isnan(CONFIDENCE)
# Class 0: images 0, 1, 6; class 1: 2, 3, 4; class 2: 5, 7, 7.
SELECTED = np.array([0, 1, 2, 3, 4, 5, 6, 7, 7])


def probabilities():
    rows = np.zeros((10, 3), np.float32)
    for row, k, confidence in zip(rows, PREDICTED, CONFIDENCE, strict=True):
        row[:] = (1 - confidence) / 2
        row[k] = confidence
    return rows


def read(index):
    return np.full((8, 6, 1), 25 * index, np.uint8)


def label_summary(number, known=True):
    return summarize_labels(
        probabilities(),
        SELECTED,
        stage=f"round{number}/labels.npy",
        teacher="somebody",
        readable=READABLE,
        true=CLASSES if known else None,
        name="image {}".format,
        seconds=12.0,
    )


def model_summary(stage, model, accuracy):
    return ModelSummary(stage, model, 1234, 28, accuracy, 0.5, 0.0625, 300, 90.0)


def make_summary(known=True, **changes):
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
        "teacher": model_summary("round0/teacher", "resnet18", 0.5125),
        "rounds": [
            RoundSummary(
                label_summary(1, known),
                model_summary("round1/student", "resnet34", 0.6125),
            ),
            RoundSummary(
                label_summary(2, known),
                model_summary("round2/student", "resnet50", 0.7125),
            ),
        ],
        "final": model_summary("final", "resnet50", 0.7375),
    }
    return Summary(**{**fields, **changes})
