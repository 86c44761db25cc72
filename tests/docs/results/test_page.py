import json
from pathlib import Path

import pytest

from docs.results import augmentation, rows
from docs.results.page import page
from train.config import Augment, Config, Input, Network, Selection

PAGE = Path(rows.__file__).parents[1] / "results.md"


def test_the_page_is_what_the_command_writes():
    assert PAGE.read_text() == page(), "Write it again: python -m docs.results"


def test_every_arm_was_measured_from_every_seed_in_equal_steps():
    measured = rows.read("augmentation")
    found = [(row["arm"], row["seed"]) for row in measured]
    arms, seeds = augmentation.ARMS, augmentation.SEEDS
    assert found == [(arm, seed) for arm in arms for seed in seeds]
    assert len({row["steps"] for row in measured}) == 1


@pytest.mark.slow
def test_an_arm_is_trained_and_judged_on_the_test_images(tmp_path, monkeypatch):
    config = Config(
        input=Input("digits", image_size=8, batch_size=100, mean=(0.3,), std=(0.4,)),
        selection=Selection(eval_split="val", val_share=0.1),
        network=Network(
            "resnet18", {"stage_sizes": (1,), "width": 4, "small_inputs": True}
        ),
        epochs=1,
    )
    monkeypatch.setattr(augmentation, "CONFIG", config)
    monkeypatch.setattr(augmentation, "ARMS", {"flips": Augment(flip=0.5)})
    monkeypatch.setattr(augmentation, "SEEDS", (3,))
    monkeypatch.setattr(rows, "_FOLDER", tmp_path)
    rows.write("augmentation", augmentation.measure(tmp_path / "runs"))
    (row,) = rows.read("augmentation")
    assert (row["arm"], row["seed"], row["steps"]) == ("flips", 3, 12)
    assert 0 < row["accuracy"] < 1
    # 359 test images, not the 143 of the split val.
    assert round(row["accuracy"] * 359, 6).is_integer()


def test_shares_are_shown_with_their_range():
    assert rows.spread([0.85, 0.852, 0.8471]) == "85.0 % (84.7 to 85.2)"


def test_a_row_of_a_run_that_had_ended_keeps_its_day(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_FOLDER", tmp_path)
    older = {
        "arm": "a",
        "seconds": 1.5,
        "date": "2026-01-01",
        "machine": "m",
        "jax": "0",
    }
    (tmp_path / "some.jsonl").write_text(json.dumps(older) + "\n")
    rows.write("some", [{"arm": "a", "seconds": 1.5}, {"arm": "b", "seconds": 1.5}])
    kept, new = rows.read("some")
    assert kept == older
    assert new["arm"] == "b" and new["date"] > older["date"]
