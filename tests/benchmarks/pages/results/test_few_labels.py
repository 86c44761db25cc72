import numpy as np
import pytest

from benchmarks.measurements import read_lines
from benchmarks.pages.folders import MEASUREMENTS
from benchmarks.pages.results import few_labels

MEASURED = read_lines(MEASUREMENTS / "few_labels.jsonl")


def row(arm, labels, seed, accuracy, **more):
    counts = {"steps": 1000, "parameters": 78394, "seconds": 60.0}
    place = {"arm": arm, "labels": labels, "seed": seed, "accuracy": accuracy}
    where = {"date": "2026-01-01", "machine": "m", "jax": "0"}
    return {**place, **counts, **where, **more}


def test_gains_are_taken_seed_by_seed():
    found = []
    for seed, alone in enumerate((0.70, 0.80, 0.75)):
        for arm in few_labels.ARMS:
            gain = 0.0 if arm == "supervised" else 0.01 * (1 + seed)
            rounds = [alone - 0.02, alone, alone + gain]
            found.append(row(arm, 250, seed, alone + gain, rounds=rounds))
    text = few_labels.section(found)
    assert "| supervised | 75.0 % (70.0 to 80.0) | 1.0 |" in text
    assert "| FixMatch | 77.0 % (71.0 to 82.0) | 1.0 |" in text
    assert "| FixMatch | +2.0 (+1.0 to +3.0) |" in text
    assert "| 1 | 73.0 % (68.0 to 78.0) |" in text
    assert "| 3 | 77.0 % (71.0 to 82.0) |" in text


def test_every_arm_was_measured_from_every_seed_in_equal_steps():
    counts = dict.fromkeys(row["labels"] for row in MEASURED)
    found = [(row["labels"], row["seed"], row["arm"]) for row in MEASURED]
    assert set(counts) == set(few_labels.LABELS)
    seeds, arms = few_labels.SEEDS, few_labels.ARMS
    assert found == [(n, seed, arm) for n in counts for seed in seeds for arm in arms]
    assert len({row["steps"] for row in MEASURED}) == 1


def _gains(arm, labels, before="supervised"):
    accuracy = {
        (row["labels"], row["seed"], row["arm"]): row["accuracy"] for row in MEASURED
    }
    return [
        accuracy[labels, seed, arm] - accuracy[labels, seed, before]
        for seed in few_labels.SEEDS
    ]


# Those that learn from images without labels.
METHODS = [a for a in few_labels.ARMS if a not in ("supervised", "noise alone")]


@pytest.mark.parametrize("arm", METHODS)
def test_more_is_learned_from_images_without_labels_where_labels_are_few(arm):
    few, more, many = (np.mean(_gains(arm, labels)) for labels in (40, 250, 1000))
    assert few > more > many > 0
    assert min(_gains(arm, 40)) > 0 and min(_gains(arm, 250)) > 0


@pytest.mark.parametrize("arm", ["FixMatch", "Noisy Student"])
def test_with_250_labels_the_worst_seed_beats_the_best_of_training_on_labels(arm):
    accuracy = {
        name: [
            row["accuracy"]
            for row in MEASURED
            if row["labels"] == 250 and row["arm"] == name
        ]
        for name in (arm, "supervised")
    }
    assert min(accuracy[arm]) > max(accuracy["supervised"])


@pytest.mark.parametrize("labels", few_labels.LABELS)
def test_the_last_round_of_the_noisy_student_beats_its_first(labels):
    for row in MEASURED:
        if row["arm"] == "Noisy Student" and row["labels"] == labels:
            assert row["rounds"][-1] > row["rounds"][0]


@pytest.mark.parametrize("labels", few_labels.LABELS)
def test_a_noisy_student_beats_itself_without_its_teacher(labels):
    assert min(_gains("Noisy Student", labels, "noise alone")) > 0
