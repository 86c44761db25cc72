import numpy as np
import pytest

from benchmarks.measurements import read_lines
from benchmarks.pages.folders import DOCS, MEASUREMENTS
from benchmarks.pages.markdown import percent_range
from benchmarks.pages.results import consistency
from benchmarks.pages.results.consistency import ARMS, SEEDS

MEASURED = read_lines(MEASUREMENTS / "consistency.jsonl")
VARIANTS = ["FlexMatch", "SoftMatch", "FreeMatch", "AdaMatch"]


def test_every_arm_was_measured_from_every_seed_in_equal_steps():
    found = [(row["arm"], row["seed"]) for row in MEASURED]
    assert found == [(arm, seed) for arm in ARMS for seed in SEEDS]
    assert {row["steps"] for row in MEASURED} == {600}


def accuracies(arm):
    return np.array([row["accuracy"] for row in MEASURED if row["arm"] == arm])


@pytest.mark.parametrize("arm", VARIANTS)
def test_from_every_seed_a_variant_beats_fixmatch_and_that_the_labels_alone(arm):
    assert (accuracies(arm) > accuracies("FixMatch")).all()
    assert (accuracies("FixMatch") > accuracies("supervised")).all()


def test_the_guide_has_the_measured_accuracies():
    guide = (DOCS / "how-to" / "labels-from-a-model.md").read_text("utf-8")
    for arm in ("FixMatch", *VARIANTS, "MixMatch"):
        (row,) = (x for x in guide.splitlines() if x.startswith(f"| `{arm.lower()}`"))
        assert f"| {percent_range(list(accuracies(arm)))} |" in row
    alone = percent_range(list(accuracies("supervised")))
    assert f"the labels alone give {alone}" in guide


def test_mixmatch_has_the_best_and_the_worst_run():
    found = accuracies("MixMatch")
    others = [accuracies(arm) for arm in ("FixMatch", *VARIANTS)]
    assert found.max() > np.max(others) and found.min() < np.min(others)
    assert (found < accuracies("supervised")).sum() == 1


def test_gains_are_taken_seed_by_seed():
    rows = [
        {**row, "accuracy": 0.5 + 0.01 * row["seed"] * (1 + (row["arm"] == "AdaMatch"))}
        for row in MEASURED
    ]
    text = consistency.section(rows)
    assert "| AdaMatch | 54.0 % (50.0 to 58.0) | +2.0 (+0.0 to +4.0) | +2.0" in text
    assert "| supervised | 52.0 % (50.0 to 54.0) |  |  |" in text


def test_the_picture_has_a_line_per_method_with_a_threshold():
    left, right = consistency.picture(MEASURED).axes
    assert len(left.lines) == 5 and len(right.lines) == 10
    (threshold,) = (x for x in left.lines if x.get_label() == "AdaMatch")
    rows = [row["threshold"] for row in MEASURED if row["arm"] == "AdaMatch"]
    np.testing.assert_allclose(threshold.get_ydata(), 100 * np.mean(rows, 0))
