import contextlib
import dataclasses
import shutil
import signal
from typing import Any

import chex
import jax
import numpy as np
import pytest

from cnn_flax import load_pretrained
from cnn_flax.weights import WeightsError
from tests.support.runs import untrained_run
from train.config import Network
from train.data import open_source
from train.errors import Interrupted, UserError
from train.run.loop import fit
from train.run.program import build

pytestmark = pytest.mark.usefixtures("programs")

FIELDS = {"stage_sizes": (1,), "width": 4, "small_inputs": True}


@pytest.fixture(scope="module")
def pretrained(tiny, tmp_path_factory):
    """A run to start from; tests must not change it."""
    config = dataclasses.replace(tiny, network=Network("resnet18", FIELDS))
    return untrained_run(tmp_path_factory.mktemp("pretrained") / "run", config)


def starting_from(source, tiny, **fields):
    network = Network("resnet18", {**FIELDS, **fields}, init=str(source))
    return dataclasses.replace(tiny, network=network, epochs=2)


def test_a_run_starts_from_the_weights_except_for_the_head(pretrained, tiny):
    _, weights = load_pretrained("resnet18", pretrained)
    program = build(starting_from(pretrained, tiny))
    state = program.init()
    assert pretrained.name in program.headline
    for part, tree in weights["params"].items():
        for ours, theirs in zip(
            jax.tree.leaves(state.params[part]), jax.tree.leaves(tree), strict=True
        ):
            if part != "head":
                np.testing.assert_array_equal(ours, theirs)
            else:
                assert ours.shape == theirs.shape and not ours.any() and theirs.any()
    for ours, theirs in zip(
        jax.tree.leaves(state.batch_stats),
        jax.tree.leaves(weights["batch_stats"]),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_with_init_head_the_head_starts_from_the_weights_too(pretrained, tiny):
    _, weights = load_pretrained("resnet18", pretrained)
    config = starting_from(pretrained, tiny)
    network = dataclasses.replace(config.network, init_head=True)
    program = build(dataclasses.replace(config, network=network))
    chex.assert_trees_all_equal(program.init().variables, weights)
    assert f"({pretrained})" in program.headline


@pytest.mark.parametrize(
    ("source", "fields", "error", "message"),
    [
        ("missing", {}, WeightsError, "no file or folder missing"),
        (None, {"width": 8}, (UserError, WeightsError), "shape"),
    ],
)
def test_unusable_weights_leave_no_folder(
    pretrained, tiny, tmp_path, quiet, source, fields, error, message
):
    config = starting_from(source or pretrained, tiny, **fields)
    with pytest.raises(error, match=message):
        fit(config, tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_resumed_run_does_not_need_the_weights(
    pretrained, tiny, tmp_path, quiet, monkeypatch
):
    source = shutil.copytree(pretrained, tmp_path / "pretrained")
    config = starting_from(source, tiny)
    with monkeypatch.context() as patch:
        received = contextlib.nullcontext([signal.SIGINT])
        patch.setattr("train.run.loop._signals", lambda: received)
        with pytest.raises(Interrupted):
            fit(config, tmp_path / "run", console=quiet)
    shutil.rmtree(source)
    assert fit(config, tmp_path / "run", console=quiet)["epochs"] == 2


def test_a_run_with_other_classes_provides_all_but_its_head(pretrained, tiny, tmp_path):
    arrays: dict[str, Any] = {"class_names": ["even", "odd"]}
    for split in ("train", "test"):
        source = open_source("digits", split)
        arrays |= {f"x_{split}": source.images, f"y_{split}": source.labels % 2}
    np.savez(tmp_path / "parity.npz", **arrays)
    config = starting_from(pretrained, tiny)
    inputs = dataclasses.replace(config.input, data=f"npz:{tmp_path / 'parity.npz'}")
    state = build(dataclasses.replace(config, input=inputs)).init()
    _, weights = load_pretrained("resnet18", pretrained)
    head, theirs = state.params.pop("head"), weights["params"].pop("head")
    assert (head["kernel"].shape, theirs["kernel"].shape) == ((4, 2), (4, 10))
    chex.assert_trees_all_equal(state.variables, weights)
