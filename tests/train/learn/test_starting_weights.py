import contextlib
import dataclasses
import io
import shutil
import signal
from typing import Any

import chex
import jax
import numpy as np
import pytest
from rich.console import Console

from cnn_flax import load_pretrained
from cnn_flax.weights import WeightsError
from train.config import Network
from train.data import open_source
from train.errors import Interrupted, UserError
from train.run.loop import fit
from train.run.program import build

pytestmark = pytest.mark.usefixtures("programs")

FIELDS = {"stage_sizes": (1,), "width": 4, "small_inputs": True}


@pytest.fixture(scope="module")
def teacher(programs, tiny, tmp_path_factory):
    """A run to begin from; it is left as it is."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    config = dataclasses.replace(tiny, network=Network("resnet18", FIELDS), epochs=1)
    fit(config, run, console=Console(file=io.StringIO()))
    return run


def beginning_from(source, tiny, **fields):
    network = Network("resnet18", {**FIELDS, **fields}, init=str(source))
    return dataclasses.replace(tiny, network=network, epochs=2)


def test_a_run_begins_from_the_weights_but_for_the_head(teacher, tiny):
    _, weights = load_pretrained("resnet18", teacher)
    program = build(beginning_from(teacher, tiny))
    state = program.init()
    assert teacher.name in program.headline
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


def test_the_head_begins_from_them_too_where_that_is_asked_for(teacher, tiny):
    _, weights = load_pretrained("resnet18", teacher)
    config = beginning_from(teacher, tiny)
    network = dataclasses.replace(config.network, init_head=True)
    program = build(dataclasses.replace(config, network=network))
    chex.assert_trees_all_equal(program.init().variables, weights)
    assert f"({teacher})" in program.headline


@pytest.mark.parametrize(
    ("source", "fields", "error", "message"),
    [
        ("missing", {}, WeightsError, "no file or folder missing"),
        (None, {"width": 8}, (UserError, WeightsError), "shape"),
    ],
)
def test_weights_that_cannot_be_used_make_no_folder(
    teacher, tiny, tmp_path, quiet, source, fields, error, message
):
    config = beginning_from(source or teacher, tiny, **fields)
    with pytest.raises(error, match=message):
        fit(config, tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_needs_the_weights_no_more(
    teacher, tiny, tmp_path, quiet, monkeypatch
):
    source = shutil.copytree(teacher, tmp_path / "teacher")
    config = beginning_from(source, tiny)
    with monkeypatch.context() as patch:
        received = contextlib.nullcontext([signal.SIGINT])
        patch.setattr("train.run.loop._signals", lambda: received)
        with pytest.raises(Interrupted):
            fit(config, tmp_path / "run", console=quiet)
    shutil.rmtree(source)
    assert fit(config, tmp_path / "run", console=quiet)["epochs"] == 2


def test_a_run_with_other_classes_gives_all_but_its_head(teacher, tiny, tmp_path):
    arrays: dict[str, Any] = {"class_names": ["even", "odd"]}
    for split in ("train", "test"):
        source = open_source("digits", split)
        arrays |= {f"x_{split}": source.images, f"y_{split}": source.labels % 2}
    np.savez(tmp_path / "parity.npz", **arrays)
    config = beginning_from(teacher, tiny)
    inputs = dataclasses.replace(config.input, data=f"npz:{tmp_path / 'parity.npz'}")
    state = build(dataclasses.replace(config, input=inputs)).init()
    _, weights = load_pretrained("resnet18", teacher)
    head, theirs = state.params.pop("head"), weights["params"].pop("head")
    assert (head["kernel"].shape, theirs["kernel"].shape) == ((4, 2), (4, 10))
    chex.assert_trees_all_equal(state.variables, weights)
