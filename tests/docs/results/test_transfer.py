import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from docs.results import rows, transfer
from train.config import Config, Input, Network
from train.loop import fit


def test_every_arm_was_measured_from_every_seed():
    measured = rows.read("transfer")
    found = [(row["arm"], row["seed"]) for row in measured]
    arms = [*transfer.ARMS, transfer.NEAREST]
    assert set(found) == {(arm, seed) for arm in arms for seed in transfer.SEEDS} | {
        (transfer.NOT_KEPT, transfer.SEEDS[0])
    }
    assert len(found) == len(set(found))


def test_weights_are_worth_more_than_steps():
    accuracy = {(r["arm"], r["seed"]): r["accuracy"] for r in rows.read("transfer")}

    def found(arm):
        return np.array([accuracy[arm, seed] for seed in transfer.SEEDS])

    nearest, fine_tuned = found(transfer.NEAREST), "fine-tuned, the backbone at a tenth"
    scratch, head = found("from scratch, longer"), "features: the head alone"
    for short in (head, fine_tuned, "from scratch"):
        assert (found(short) < nearest).all()
    for long in (f"{head}, longer", "fine-tuned, longer"):
        assert (found(long) > nearest).all()
    assert (scratch < nearest).all()


def test_both_sides_of_a_picture_are_apart():
    for left, right in transfer.pictures().values():
        whole = left.shape[1] / 0.55
        assert whole - left.shape[1] - right.shape[1] >= 0.08 * whole - 2
        assert min(*left.shape[:2], *right.shape[:2]) >= 96


def test_patches_are_cut_from_their_side_and_drawn_by_the_seed(monkeypatch):
    # Each pixel says its column; the right side begins at 155.
    columns = np.arange(255, dtype=np.uint8)
    picture = np.broadcast_to(columns[None, :, None], (120, 255, 3))
    sides = {"a": (picture[:, :150], picture[:, 155:])}
    monkeypatch.setattr(transfer, "pictures", lambda: sides)
    found = transfer.patches(0)
    assert found["x_train"].shape == (10, 96, 96, 3)
    assert found["x_test"].shape == (20, 96, 96, 3)
    assert found["x_train"].max() < 150 and found["x_test"].min() >= 155
    np.testing.assert_array_equal(found["x_train"], transfer.patches(0)["x_train"])
    assert (found["x_train"] != transfer.patches(1)["x_train"]).any()


@pytest.mark.slow
@pytest.mark.long
def test_arms_are_trained_and_nearest_means_are_of_the_kept_features(
    tmp_path, monkeypatch
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
    sides = {k: (np.full((96, 96, 3), k, np.uint8),) * 2 for k in (10, 200)}
    monkeypatch.setattr(
        transfer, "pictures", lambda: {str(k): side for k, side in sides.items()}
    )
    arrays: Any = transfer.patches(0)
    np.savez(tmp_path / "source.npz", **arrays)
    data = dataclasses.replace(config.input, data=f"npz:{tmp_path / 'source.npz'}")
    source = dataclasses.replace(config, input=data)
    fit(source, tmp_path / "source", console=Console(file=io.StringIO()))
    monkeypatch.setattr(transfer, "_weights", lambda: str(tmp_path / "source"))
    monkeypatch.setattr(transfer, "CONFIG", config)
    monkeypatch.setattr(transfer, "SEEDS", (0,))
    monkeypatch.setattr(transfer, "_LONGER", 3)
    found = list(transfer.measure(tmp_path / "runs"))
    assert [row["arm"] for row in found] == [
        *transfer.ARMS,
        transfer.NOT_KEPT,
        transfer.NEAREST,
    ]
    accuracy = {row["arm"]: row["accuracy"] for row in found}
    assert accuracy["features: the head alone"] == accuracy[transfer.NOT_KEPT]
    assert accuracy[transfer.NEAREST] == 1
