import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks.measurements import read_lines
from benchmarks.pages.folders import MEASUREMENTS
from benchmarks.pages.results import transfer
from train.config import Config, Input, Network, Transfer
from train.errors import UserError
from train.run.loop import fit

MEASURED = read_lines(MEASUREMENTS / "transfer.jsonl")


def test_every_arm_was_measured_from_every_seed():
    found = [(row["arm"], row["seed"]) for row in MEASURED]
    arms = [*transfer.ARMS, transfer.NEAREST]
    assert set(found) == {(arm, seed) for arm in arms for seed in transfer.SEEDS} | {
        (transfer.NOT_CACHED, transfer.SEEDS[0])
    }
    assert len(found) == len(set(found))


def test_weights_are_worth_more_than_steps():
    accuracy = {(r["arm"], r["seed"]): r["accuracy"] for r in MEASURED}

    def found(arm):
        return np.array([accuracy[arm, seed] for seed in transfer.SEEDS])

    scratch, nearest = found("from scratch, longer"), found(transfer.NEAREST)
    for arm in [*transfer.ARMS, transfer.NEAREST]:
        if not arm.startswith("from scratch"):
            assert (found(arm) > scratch + 0.15).all()
    for near in ("features: the head alone, longer", "fine-tuned, longer"):
        assert (np.abs(found(near) - nearest) < 0.05).all()
    for other in transfer.ARMS:
        if other.startswith("fine-tuned, longer,"):
            assert (found(other) < found("fine-tuned, longer")).all()


def stamp(folder, name, size, colour):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, colour).save(folder / f"{name}.png")


def test_a_picture_is_on_one_side_and_copies_on_none(tmp_path, monkeypatch):
    for i in range(12):
        stamp(tmp_path / "cars" / "fast", f"car{i}", (50, 50), (i, 0, 0, 255))
        stamp(tmp_path / "birds", f"bird{i}", (50, 50), (100 + i, 0, 0, 255))
    stamp(tmp_path / "birds", "bird3_mirror", (50, 50), (200, 0, 0, 255))
    monkeypatch.setattr(transfer, "_STAMPS", tmp_path)
    monkeypatch.setattr(
        transfer, "_FOLDERS", {"car": ["cars", "cars/fast"], "bird": ["birds"]}
    )
    found = transfer.split(0)
    assert found["class_names"] == ["car", "bird"]
    assert found["x_train"].shape == (20, 96, 96, 3)
    assert found["x_test"].shape == (4, 96, 96, 3)
    np.testing.assert_array_equal(found["y_train"], np.repeat([0, 1], 10))
    # Each picture is its red.
    reds = {side: found[f"x_{side}"][:, 0, 0, 0] for side in ("train", "test")}
    of_class = {side: red >= 100 for side, red in reds.items()}
    np.testing.assert_array_equal(of_class["train"], found["y_train"])
    np.testing.assert_array_equal(of_class["test"], found["y_test"])
    assert sorted([*reds["train"], *reds["test"]]) == [*range(12), *range(100, 112)]
    np.testing.assert_array_equal(found["x_train"], transfer.split(0)["x_train"])
    assert (found["x_train"] != transfer.split(1)["x_train"]).any()


def test_a_picture_lies_in_the_middle_of_white(tmp_path, monkeypatch):
    stamp(tmp_path / "birds", "bird", (40, 20), (0, 0, 0, 255))
    stamp(tmp_path / "birds", "ghost", (40, 40), (0, 0, 0, 51))
    monkeypatch.setattr(transfer, "_STAMPS", tmp_path)
    monkeypatch.setattr(transfer, "_FOLDERS", {"bird": ["birds"]})
    wide, ghost = transfer.pictures()["bird"]
    assert (wide[24:72] == 0).all()
    assert (wide[:24] == 255).all() and (wide[72:] == 255).all()
    assert (ghost == 204).all()


def test_without_the_pictures_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_STAMPS", tmp_path / "none")
    with pytest.raises(UserError, match="install Debian's tuxpaint-stamps-default"):
        transfer.pictures()


@pytest.mark.skipif(not transfer._STAMPS.is_dir(), reason="package not installed")
def test_no_picture_is_anothers_copy_or_mirror_image():
    classes = list(transfer.pictures().values())
    assert min(map(len, classes)) >= 18
    small = np.concatenate(classes).reshape(-1, 32, 3, 32, 3, 3).mean((2, 4))
    small -= small.mean((1, 2, 3), keepdims=True)
    small /= np.sqrt((small**2).sum((1, 2, 3), keepdims=True))
    images, mirrored = (x.reshape(len(x), -1) for x in (small, small[:, :, ::-1]))
    alike = np.maximum(images @ images.T, images @ mirrored.T)
    assert alike[~np.eye(len(alike), dtype=bool)].max() < 0.97


@pytest.mark.slow
def test_arms_are_trained_and_nearest_means_are_of_the_kept_features(
    tmp_path, monkeypatch, programs
):
    network = Network(
        "resnet18", {"stage_sizes": (1,), "width": 4, "small_inputs": True}
    )
    config = Config(
        input=Input(image_size=8, batch_size=10),
        network=network,
        epochs=1,
        epoch_steps=2,
    )
    pictures = {str(k): np.full((15, 96, 96, 3), k, np.uint8) for k in (10, 200)}
    monkeypatch.setattr(transfer, "pictures", lambda: pictures)
    arrays: Any = transfer.split(0)
    np.savez(tmp_path / "source.npz", **arrays)
    data = dataclasses.replace(config.input, data=f"npz:{tmp_path / 'source.npz'}")
    source = dataclasses.replace(config, input=data)
    fit(source, tmp_path / "source", console=Console(file=io.StringIO()))
    monkeypatch.setattr(transfer, "_weights", lambda: str(tmp_path / "source"))
    monkeypatch.setattr(transfer, "CONFIG", config)
    monkeypatch.setattr(transfer, "SEEDS", (0,))
    monkeypatch.setattr(transfer, "_LONGER", 3)
    # A config of every arm is made, and one arm of each kind is trained.
    steps = [transfer._config(arm, data.data, 0).epoch_steps for arm in transfer.ARMS]
    assert steps == [2, 3, 2, 3, 3, 3, 2, 3]
    kinds = {transfer.ARMS[arm]: arm for arm in reversed(transfer.ARMS)}
    assert len(kinds) == 5
    arms = [kinds[Transfer()], kinds[Transfer(backbone_rate=0.1)], transfer._HEAD]
    monkeypatch.setattr(transfer, "ARMS", {arm: transfer.ARMS[arm] for arm in arms})
    found = list(transfer.measure(tmp_path / "runs"))
    assert [row["arm"] for row in found] == [
        *arms,
        transfer.NOT_CACHED,
        transfer.NEAREST,
    ]
    accuracy = {row["arm"]: row["accuracy"] for row in found}
    assert accuracy["features: the head alone"] == accuracy[transfer.NOT_CACHED]
    assert accuracy[transfer.NEAREST] == 1
