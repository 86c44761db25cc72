"""Labelling shards and training on them, end to end, with a net of one block."""

import dataclasses
import io
import itertools
import re

import numpy as np
import pytest
from rich.console import Console

from tests.support.runs import assert_resumes_to_the_same_end, interrupt_at
from tests.support.shards import WRITERS, png
from train.__main__ import main
from train.config import Augment, Selection, Unlabelled
from train.data import open_source
from train.data.label_shards import (
    dense_probabilities,
    label_path,
    read_folder,
    read_label_shard,
)
from train.data.shards import list_shards
from train.errors import Interrupted, UserError
from train.run.labelling import label_images
from train.run.loop import fit
from train.run.program import build
from train.run.shard_labelling import ShardLabeller, label_shards
from train.run.training_batches import training_batches

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("programs")]
SIZES = (60, 20, 45, 30)


@pytest.fixture(scope="module")
def run(programs, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    config = dataclasses.replace(tiny, augment=Augment(), epochs=1)
    fit(config, folder, console=Console(file=io.StringIO()))
    return folder


@pytest.fixture(scope="module")
def digits():
    """The first training digits, whose third is broken: pixels, and files."""
    source = open_source("digits")
    files = [png(source.read(i)) for i in range(sum(SIZES))]
    files[2] = b"none"
    return source.take(np.arange(sum(SIZES))), files


@pytest.fixture(scope="module")
def shards(digits, tmp_path_factory):
    """The digits as a tar, an array_record, a parquet and a list."""
    folder = tmp_path_factory.mktemp("shards")
    cuts = itertools.pairwise(np.cumsum([0, *SIZES]))
    for number, ((start, stop), write) in enumerate(
        zip(cuts, WRITERS.values(), strict=True)
    ):
        write(folder / f"{number}", digits[1][start:stop])
    return list_shards(f"shards:{folder}/[0-9].*")


@pytest.fixture(scope="module")
def labelled(run, shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("labels") / "labels"
    label_shards(ShardLabeller(run, out, top=3, say=quiet), shards, say=quiet)
    return out


def quiet(text):
    pass


def read_all(folder, shards):
    return [read_label_shard(label_path(folder, name)) for name in shards.names]


def test_the_labels_are_the_most_probable_classes_of_the_dense_file(
    run, digits, shards, labelled, tmp_path
):
    dense = label_images(run, digits[0], tmp_path / "dense.npy", say=quiet)
    parts = read_all(labelled, shards)
    assert [len(part.keys) for part in parts] == list(SIZES)
    classes = np.concatenate([part.classes for part in parts], axis=1)
    log_probs = np.concatenate([part.log_probs for part in parts], axis=1)
    unreadable = np.isnan(log_probs).any(axis=0)
    assert np.flatnonzero(unreadable).tolist() == [2]
    ((name, reason),) = parts[0].header["unreadable"].values()
    assert name.endswith("0.tar[a/0002]") and reason == "its format is not known"

    expected = np.argsort(-dense.probabilities, axis=1, kind="stable")[:, :3].T
    np.testing.assert_array_equal(classes[:, ~unreadable], expected[:, ~unreadable])
    logs = np.log(np.take_along_axis(dense.probabilities, expected.T, axis=1).T)
    np.testing.assert_allclose(
        log_probs[:, ~unreadable], logs[:, ~unreadable], rtol=2**-11, atol=1e-5
    )
    found = dense_probabilities(classes, log_probs, 10)[~unreadable]
    rest = 1 - np.exp(logs[:, ~unreadable]).sum(axis=0)
    least = found.min(axis=1)  # A class of the rest.
    np.testing.assert_allclose(least, rest / 7, atol=2e-4)
    assert read_folder(labelled)["top"] == 3


def test_workers_share_the_shards_and_skip_what_exists(run, shards, labelled, tmp_path):
    spec = ["--data", shards.spec, "--out", str(tmp_path / "out"), "--top", "3"]
    for part in ("1/3", "0/3", "0/3", "2/3"):
        main(["pseudo-label", str(run), *spec, "--shards", part])
        files = sorted((tmp_path / "out").glob("*.npz"))
        times = [file.stat().st_mtime_ns for file in files]
        if part == "1/3":
            assert [file.name for file in files] == ["1.array_record.npz"]
    main(["pseudo-label", str(run), *spec])
    assert [file.stat().st_mtime_ns for file in files] == times
    for name in shards.names:
        one, other = (label_path(f, name) for f in (labelled, tmp_path / "out"))
        assert one.read_bytes() == other.read_bytes()


def test_bad_shards_do_not_keep_others_from_their_labels(run, digits, tmp_path):
    for number in range(4):
        WRITERS["tar"](tmp_path / f"{number}", digits[1][10 : 20 + number])
    shards = list_shards(f"shards:{tmp_path}/*.tar")
    broken = shards.path("1.tar")
    whole = broken.read_bytes()
    broken.write_bytes(whole[:700])
    labeller = ShardLabeller(run, tmp_path / "out", top=3, say=quiet)
    with pytest.raises(
        UserError, match=r"1 of 4 shards could not .*\n.*1\.tar.*\n.*same"
    ):
        label_shards(labeller, shards, say=quiet)
    before = [label_path(tmp_path / "out", f"{i}.tar").read_bytes() for i in (0, 2, 3)]
    # Another shard in place of one with labels; the broken one is repaired.
    broken.write_bytes(whole)
    shards.path("2.tar").write_bytes(shards.path("3.tar").read_bytes())
    message = r"1 of 4 .*\n.*labels of another .*2\.tar: digest .* there, .* here"
    with pytest.raises(UserError, match=message):
        label_shards(labeller, shards, say=quiet)
    after = [label_path(tmp_path / "out", f"{i}.tar").read_bytes() for i in (0, 2, 3)]
    assert before == after
    assert label_path(tmp_path / "out", "1.tar").exists()


def test_wrong_flags_are_one_line(run, shards, capsys):
    words = ["pseudo-label", str(run), "--out", "x"]
    for flags, message in (
        (["--data", "digits", "--shards", "0/2"], "needs --data shards:PATTERN"),
        (["--data", shards.spec, "--shards", "2/2"], "must be I/N .*, got 2/2"),
        (["--data", shards.spec, "--shards=-1/2"], "must be I/N"),
        (["--data", shards.spec, "--shards", "1"], "must be I/N"),
        (["--data", shards.spec, "--top", "0"], "--top must be at least 1, got 0"),
        (["--data", "shards:none/*.tar"], "no shard matches"),
    ):
        assert main([*words, *flags]) != 0
        captured = capsys.readouterr()
        assert re.search(message, captured.err), captured
        assert "Traceback" not in captured.err


def student(tiny, shards, labelled, **options):
    return dataclasses.replace(
        tiny,
        selection=Selection(labels_per_class=20),
        unlabelled=Unlabelled(
            shards.spec, ratio=1, pseudo_labels=str(labelled), **options
        ),
        epochs=2,
        epoch_steps=3,
    )


def test_a_student_trains_from_shards_and_resumes_exactly(
    tiny, shards, labelled, tmp_path, monkeypatch, quiet
):
    config = student(tiny, shards, labelled, per_class=10)
    assert_resumes_to_the_same_end(config, tmp_path, 2, monkeypatch, quiet)


def test_batches_have_the_images_with_their_own_labels(tiny, digits, shards, labelled):
    parts = read_all(labelled, shards)
    keys = {}  # Of the pixels: their labels.
    images = [digits[0].read(i) for i in range(sum(SIZES))]
    classes = np.concatenate([part.classes for part in parts], axis=1)
    log_probs = np.concatenate([part.log_probs for part in parts], axis=1)
    dense = dense_probabilities(classes, log_probs, 10)
    for image, row in zip(images, dense, strict=True):
        keys[image.tobytes()] = row
    config = student(tiny, shards, labelled)
    program = build(config)
    assert len(program.unlabelled) == sum(SIZES) - 1  # All readable ones.
    seen = {}
    for start in (0, 1):
        batches = training_batches(program, start)
        for step, batch in zip(range(start, 3), batches, strict=False):
            unlabelled = batch["unlabelled"]
            pixels = np.asarray(unlabelled["image"])
            rows = np.asarray(unlabelled["label"])
            for image, row in zip(pixels, rows, strict=True):
                np.testing.assert_array_equal(keys[image.tobytes()], row)
            # Resuming at a step gives the batches of that step.
            np.testing.assert_array_equal(seen.setdefault(step, pixels), pixels)
        batches.close()
    assert len({image.tobytes() for image in seen[0]}) == 100  # No image twice.
    assert not np.array_equal(seen[0], seen[1])


def test_labels_of_other_shards_are_one_error(tiny, shards, labelled, tmp_path):
    listed = tmp_path / "list"
    listed.write_text("".join(f"{shards.path(name)}\n" for name in shards.names))
    with pytest.raises(UserError, match="has no labels of 4 of 4 shards, such as"):
        build(student(tiny, list_shards(f"shards:@{listed}"), labelled))
    with pytest.raises(UserError, match="needs --pseudo-labels DIR"):
        Unlabelled(shards.spec, consistency="fixmatch")
    with pytest.raises(UserError, match="is not a folder of label shards"):
        build(student(tiny, shards, tmp_path))


def test_a_run_is_resumed_with_its_own_shards_only(
    tiny, run, digits, tmp_path, monkeypatch, quiet
):
    labeller = ShardLabeller(run, tmp_path / "labels", say=quiet.print)
    for number in range(2):
        WRITERS["tar"](tmp_path / f"{number}", digits[1][number * 50 :][:50])
    first = list_shards(f"shards:{tmp_path}/*.tar")
    label_shards(labeller, first, say=quiet.print)
    config = student(tiny, first, tmp_path / "labels")
    interrupt_at(monkeypatch, 2)
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "run", console=quiet)

    added = WRITERS["tar"](tmp_path / "2", digits[1][10:40])
    label_shards(labeller, list_shards(first.spec), say=quiet.print)
    with pytest.raises(UserError, match="are other shards than when the run began"):
        fit(config, tmp_path / "run", console=quiet)
    added.rename(tmp_path / "2")
    moved = first.path("1.tar").read_bytes()
    first.path("1.tar").write_bytes(first.path("0.tar").read_bytes())
    with pytest.raises(UserError, match=r"labels of another .*1\.tar: digest"):
        fit(config, tmp_path / "run", console=quiet)
    first.path("1.tar").write_bytes(moved)
    assert fit(config, tmp_path / "run", console=quiet)["steps"] == 6
