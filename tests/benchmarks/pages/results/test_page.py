import pytest

from benchmarks.measurements import read_lines, write_lines
from benchmarks.pages.folders import DOCS, MEASUREMENTS
from benchmarks.pages.results import augmentation
from benchmarks.pages.results.page import page
from train.config import Augment, Config, Input, Network, Selection

PAGE = DOCS / "results.md"


def test_the_page_is_what_the_command_writes():
    assert PAGE.read_text() == page(), (
        "Write it again: python -m benchmarks.pages.results"
    )


def test_every_arm_was_measured_from_every_seed_in_equal_steps():
    measured = read_lines(MEASUREMENTS / "augmentation.jsonl")
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
    path = tmp_path / "augmentation.jsonl"
    write_lines(path, augmentation.measure(tmp_path / "runs"))
    (row,) = read_lines(path)
    assert (row["arm"], row["seed"], row["steps"]) == ("flips", 3, 12)
    assert 0 < row["accuracy"] < 1
    # 359 test images, not the 143 of the split val.
    assert round(row["accuracy"] * 359, 6).is_integer()
