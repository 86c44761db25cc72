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
# A change that is never made, so that the backbone runs in every step.
NEVER = Augment(flip=1e-30)


@pytest.fixture(scope="module")
def source(programs, tiny, tmp_path_factory):
    """A run to begin from."""
    run = tmp_path_factory.mktemp("source") / "run"
    network = Network("resnet18", FIELDS)
    fit(
        dataclasses.replace(tiny, network=network, augment=NEVER, epochs=1),
        run,
        console=Console(file=io.StringIO()),
    )
    return run


@pytest.fixture(scope="module")
def extracting(source, tiny):
    """The head of the source, for the digits again."""
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
def kept(extracting, tmp_path_factory):
    """The run, its features kept."""
    run = tmp_path_factory.mktemp("kept") / "run"
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


def test_the_backbone_and_its_statistics_end_bit_equal_to_the_weights(source, kept):
    (_, before), (_, after) = (load_pretrained("resnet18", r) for r in (source, kept))
    head = before["params"].pop("head"), after["params"].pop("head")
    same = jax.tree.map(np.array_equal, before, after)
    assert all(jax.tree.leaves(same))
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, *head)))


def test_a_run_on_features_is_the_run_on_images(kept, extracting, tmp_path, quiet):
    config = dataclasses.replace(extracting, augment=NEVER)
    fit(config, tmp_path / "run", console=quiet)
    assert not list((tmp_path / "run").glob("features*"))
    for ours, theirs in zip(figures(kept), figures(tmp_path / "run"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_features_are_evaluated_whole_where_images_would_be_in_parts(
    kept, extracting, tmp_path, quiet, monkeypatch
):
    monkeypatch.setattr("train.learn.step._PIXELS", 1)
    fit(extracting, tmp_path / "run", console=quiet)
    assert figures(tmp_path / "run") == figures(kept)


def test_features_are_in_the_runs_folder_a_row_an_image(kept):
    rows = [np.load(kept / f"features_{split}.npy") for split in ("train", "test")]
    assert [(r.dtype, r.shape) for r in rows] == [
        (np.float32, (1438, 4)),
        (np.float32, (359, 4)),
    ]


def test_features_that_are_gone_are_made_again_and_the_run_ends_the_same(
    kept, extracting, tmp_path, quiet, monkeypatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        received = contextlib.nullcontext([signal.SIGINT])
        patch.setattr("train.run.loop._signals", lambda: received)
        with pytest.raises(Interrupted):
            fit(extracting, run, console=quiet)
    (run / "features_train.npy").unlink()
    fit(extracting, run, console=quiet)
    assert figures(run) == figures(kept)
    assert (run / "features_train.npy").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("split", ["train", "test"])
def test_images_that_cannot_be_read_are_left_out_as_they_are_without(
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
