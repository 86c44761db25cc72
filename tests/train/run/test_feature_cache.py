import contextlib
import dataclasses
import io
import signal

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cnn_flax import load_pretrained
from tests.support.runs import untrained_run
from train.config import Augment, Network, Optimization, Transfer
from train.errors import Interrupted
from train.run.loop import fit
from train.run.metrics import read_metrics
from train.run.run_folder import read_result

pytestmark = pytest.mark.usefixtures("programs")

FIELDS = {
    "stage_sizes": (1,),
    "width": 4,
    "small_inputs": True,
    "dropout_rate": 0.2,
    "drop_path_rate": 0.2,
}
# Augmentation that never changes an image, but makes the backbone run in every step.
NEVER = Augment(flip=1e-30)


@pytest.fixture(scope="module")
def source(tiny, tmp_path_factory):
    """A run to start from."""
    config = dataclasses.replace(tiny, network=Network("resnet18", FIELDS))
    return untrained_run(tmp_path_factory.mktemp("source") / "run", config)


@pytest.fixture(scope="module")
def extracting(source, tiny, programs):
    """The config of a run that trains a new head on the features of the source."""
    return dataclasses.replace(
        tiny,
        network=Network("resnet18", FIELDS, init=str(source)),
        augment=Augment(),
        optimization=Optimization(
            optimizer="adamw", learning_rate=0.01, weight_decay=0.1, ema_decay=0.9
        ),
        transfer=Transfer(transfer="features"),
    )


@pytest.fixture(scope="module")
def cached(extracting, tmp_path_factory):
    """The run of `extracting`, with its features cached."""
    run = tmp_path_factory.mktemp("cached") / "run"
    fit(extracting, run, console=Console(file=io.StringIO()))
    return run


def figures(run):
    lines = [*read_metrics(run), read_result(run)]
    timed = ("seconds", "images_per_second")
    return [
        {k: v for k, v in line.items() if k not in timed and not isinstance(v, str)}
        for line in lines
        if line is not None
    ]


@pytest.mark.slow
def test_the_backbone_and_its_statistics_end_bit_equal_to_the_weights(source, cached):
    (_, before), (_, after) = (load_pretrained("resnet18", r) for r in (source, cached))
    head = before["params"].pop("head"), after["params"].pop("head")
    same = jax.tree.map(np.array_equal, before, after)
    assert all(jax.tree.leaves(same))
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, *head)))


@pytest.mark.slow
def test_training_on_features_equals_training_on_images(
    cached, extracting, tmp_path, quiet
):
    config = dataclasses.replace(extracting, augment=NEVER)
    fit(config, tmp_path / "run", console=quiet)
    assert not list((tmp_path / "run").glob("features*"))
    for ours, theirs in zip(figures(cached), figures(tmp_path / "run"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_features_are_evaluated_in_one_piece(
    cached, extracting, tmp_path, quiet, monkeypatch
):
    monkeypatch.setattr("cnn_flax.prediction.part_size", lambda *arguments: 1)
    fit(extracting, tmp_path / "run", console=quiet)
    assert figures(tmp_path / "run") == figures(cached)


def test_the_runs_folder_holds_one_row_of_features_per_image(cached):
    rows = [np.load(cached / f"features_{split}.npy") for split in ("train", "test")]
    assert [(r.dtype, r.shape) for r in rows] == [
        (np.float32, (1438, 4)),
        (np.float32, (359, 4)),
    ]


@pytest.mark.slow
def test_missing_features_are_computed_again_and_the_run_ends_the_same(
    cached, extracting, tmp_path, quiet, monkeypatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        received = contextlib.nullcontext([signal.SIGINT])
        patch.setattr("train.run.loop._signals", lambda: received)
        with pytest.raises(Interrupted):
            fit(extracting, run, console=quiet)
    (run / "features_train.npy").unlink()
    fit(extracting, run, console=quiet)
    assert figures(run) == figures(cached)
    assert (run / "features_train.npy").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("split", ["train", "test"])
def test_unreadable_images_are_left_out_as_without_the_cache(
    extracting, tmp_path, quiet, split
):
    rng = np.random.default_rng(0)
    for i in range(20):
        part = ("train", "test")[i % 5 == 0]
        path = tmp_path / "images" / part / f"class{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    next((tmp_path / "images" / split).glob("*/*")).write_bytes(b"no image")
    config = dataclasses.replace(
        extracting,
        input=dataclasses.replace(
            extracting.input,
            data=f"folder:{tmp_path / 'images'}",
            batch_size=4,
            max_bad_share=0.5,
        ),
        log_every=1,
    )
    ends = []
    for name, augment in (("features", Augment()), ("pixels", NEVER)):
        run = tmp_path / name
        fit(dataclasses.replace(config, augment=augment), run, console=quiet)
        ends.append(figures(run))
    assert ends[0][-1]["unreadable_images"] == 1
    for ours, theirs in zip(*ends, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
