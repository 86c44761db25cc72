import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cnn_flax.weights import load_pretrained
from tests.support.devices import on_four_devices
from tests.support.runs import assert_resumes_to_the_same_end
from train.__main__ import main
from train.config import (
    Augment,
    Config,
    Input,
    Network,
    Optimization,
    Selection,
    Unlabelled,
)
from train.data import BadImagesError, open_source
from train.data.pseudo_label_file import header_path, read_pseudo_labels
from train.data.select import open_unlabelled
from train.errors import StorageError, UserError
from train.run import labelling
from train.run.inference import evaluate_run
from train.run.labelling import label_images
from train.run.loop import fit
from train.run.metrics import read_metrics
from train.run.program import build
from train.run.record import check_pseudo_labels

pytestmark = pytest.mark.usefixtures("programs")
PROGRAMS = Path(__file__).parent


@pytest.fixture(scope="module")
def run(programs, tiny, tmp_path_factory):
    """A teacher that was trained with dropout and drop path."""
    folder = tmp_path_factory.mktemp("run") / "run"
    options = dataclasses.replace(tiny.optimization, ema_decay=0.9, warmup_epochs=0)
    config = dataclasses.replace(
        tiny, augment=Augment(), optimization=options, epochs=1
    )
    fit(config, folder, console=Console(file=io.StringIO()))
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Writes after every two batches of 100."""
    monkeypatch.setattr(labelling, "_SHARD", 200)


@pytest.fixture
def files(tmp_path):
    """The first 230 training digits as files, one of them broken."""
    source = open_source("digits")
    for i in range(230):
        path = tmp_path / "files" / f"{i // 100}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.read(i).squeeze()).save(path)
    (tmp_path / "files" / "1" / "150.png").write_bytes(b"none")
    return open_source(f"files:{tmp_path / 'files'}", labelled=False, cache=False)


def label(run, source, out, **options):
    """The labels, and the lines that were printed."""
    printed = []
    labels = label_images(run, source, out, say=printed.append, **options)
    return labels, printed


def contents(path):
    return path.read_bytes(), header_path(path).read_bytes()


def test_labels_are_the_softmax_of_the_model_in_evaluation(run, tmp_path):
    source = open_source("digits", count=250)
    labels, _ = label(run, source, tmp_path / "labels.npy")
    model, variables = load_pretrained("resnet18", run)
    images = np.stack([source.read(i) for i in range(250)])
    images = (images / np.float32(255) - np.float32(0.3)) / np.float32(0.4)
    logits = np.asarray(model.apply(variables, images), np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert labels.probabilities.dtype == np.float32
    np.testing.assert_allclose(labels.probabilities, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(labels.probabilities.sum(axis=1), 1, rtol=1e-6)
    assert labels.readable.all()


def test_the_file_is_read_with_numpy_alone_and_its_header_describes_it(run, tmp_path):
    out = tmp_path / "new" / "labels.npy"
    label(run, open_source("digits", count=30), out, opened={"split": "train"})
    code = f"""
import sys, numpy
rows = numpy.load({str(out)!r}, mmap_mode="r")
print(rows.dtype, rows.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "float32 (30, 10)\n", done.stderr
    header = json.loads(header_path(out).read_text())
    names = ("data", "ema", "images", "labelled", "model")
    assert {name: header[name] for name in names} == {
        "data": "digits",
        "ema": False,
        "images": 30,
        "labelled": 30,
        "model": "resnet18",
    }
    assert (header["run"], header["step"], header["split"]) == (str(run), 14, "train")
    assert header["class_names"] == list("0123456789")
    assert header["unreadable"] == {} and "jax" in header["versions"]


def test_labels_depend_on_ema_but_not_on_batch_size_or_threads(run, tmp_path):
    source = open_source("digits", count=250)

    def labelled(name, **options):
        return label(run, source, tmp_path / name, **options)[0].probabilities

    usual = labelled("a")
    np.testing.assert_allclose(labelled("b", batch_size=7), usual, atol=1e-6)
    np.testing.assert_array_equal(labelled("c", threads=3), usual)
    assert np.abs(labelled("d", ema=True) - usual).max() > 1e-3


def test_unreadable_images_are_marked_and_named(run, files, tmp_path):
    labels, printed = label(run, files, tmp_path / "labels.npy")
    assert np.flatnonzero(~labels.readable).tolist() == [150]
    assert np.flatnonzero(np.isnan(labels.probabilities).any(axis=1)).tolist() == [150]
    name = files.name(150)
    assert labels.header["unreadable"] == {"150": [name, "its format is not known"]}
    assert printed == [
        f"left out: {name} cannot be read as an image: its format is not known"
    ]
    # The other images keep their rows.
    source = open_source("digits").take(np.arange(230))
    others, _ = label(run, source, tmp_path / "others.npy")
    readable = labels.readable
    np.testing.assert_array_equal(
        labels.probabilities[readable], others.probabilities[readable]
    )


def test_too_many_unreadable_images_are_an_error(run, files, tmp_path):
    for i in (0, 1, 2):
        Path(files.name(i)).write_bytes(b"none")
    with pytest.raises(BadImagesError, match="3 of 230 images cannot be read"):
        label(run, files, tmp_path / "labels.npy")


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "call", ["os.fsync", "train.data.pseudo_label_file.write_json"]
)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_resumed_labelling_ends_with_the_same_bytes(
    run, files, tmp_path, monkeypatch, call, number
):
    whole, out = tmp_path / "whole.npy", tmp_path / "labels.npy"
    monkeypatch.setattr(labelling, "_SHARD", 100)
    label(run, files, whole)
    calls = []
    module = sys.modules["train.data.pseudo_label_file"]
    original = os.fsync if call == "os.fsync" else module.write_json

    def stop(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise Stop
        return original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(call, stop)
        label(run, files, out)
    if not header_path(out).exists():  # Stopped before the first write.
        assert not out.exists()
    elif out.exists():
        with pytest.raises(UserError, match="is not finished"):
            read_pseudo_labels(out)
    _, printed = label(run, files, out)
    done = number - (1 if call == "os.fsync" else 2)
    resumed = [f"{100 * done} of 230 images are labelled already."] if done > 0 else []
    assert printed[: len(resumed)] == resumed
    # An unreadable image is reported once.
    assert len(printed) == len(resumed) + (done < 2)
    assert contents(out) == contents(whole)


@pytest.mark.slow
def test_a_process_killed_during_a_write_resumes_to_the_same_bytes(
    run, tmp_path, programs
):
    def start(out, kill_at):
        return subprocess.run(
            [sys.executable, PROGRAMS / "killed_labelling.py", run, out, str(kill_at)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "JAX_COMPILATION_CACHE_DIR": str(programs),
            },
            capture_output=True,
            text=True,
        )

    whole, out = tmp_path / "whole.npy", tmp_path / "labels.npy"
    assert start(whole, 0).returncode == 0
    assert start(out, 3).returncode == -signal.SIGKILL
    assert json.loads(header_path(out).read_text())["labelled"] == 400
    done = start(out, 0)
    assert "400 of 1,438 images are labelled already." in done.stdout, done.stderr
    assert contents(out) == contents(whole)


def test_a_finished_file_is_not_labelled_again(run, tmp_path, monkeypatch):
    source = open_source("digits", count=250)
    label(run, source, tmp_path / "labels.npy")
    before = contents(tmp_path / "labels.npy")
    monkeypatch.setattr(type(source), "read", None)
    monkeypatch.setattr(labelling, "_label", lambda teacher, batches: iter(()))
    _, printed = label(run, source, tmp_path / "labels.npy")
    assert printed == ["250 of 250 images are labelled already."]
    assert contents(tmp_path / "labels.npy") == before


def stop(*arguments):
    raise Stop


def test_a_damaged_or_missing_file_is_written_again(run, tmp_path, monkeypatch):
    source, out = open_source("digits", count=250), tmp_path / "labels.npy"
    label(run, source, out)
    before = contents(out)
    out.write_bytes(before[0][:3000])
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(labelling.PseudoLabelsWriter, "append", stop)
        label(run, source, out)
    with pytest.raises(UserError, match="is not finished: 0 of 250"):
        read_pseudo_labels(out)
    out.unlink()
    label(run, source, out)
    assert contents(out) == before


def test_a_file_of_other_labels_is_not_touched(run, tmp_path):
    out = tmp_path / "labels.npy"
    label(run, open_source("digits", count=250), out)
    before = contents(out)
    for source, ema, other in (
        (open_source("digits", count=251), False, "images: 250 of .*, 251 of digits"),
        (open_source("digits", count=250, seed=1), False, "images: 250 of .*, 250 of"),
        (open_source("digits", count=250), True, r"teacher: .*, step 14 of .*\(EMA\)"),
    ):
        with pytest.raises(UserError, match=f"has labels (of|by) [a-z]*other {other}"):
            label(run, source, out, ema=ema)
    assert contents(out) == before


def test_a_file_among_the_images_is_refused(run, files, tmp_path):
    for out in (tmp_path / "files" / "labels.npy", tmp_path / "files" / "0" / "a.npy"):
        with pytest.raises(UserError, match="is inside .*: choose another --out"):
            label_images(run, files, out)
        assert not out.exists() and not header_path(out).exists()


def test_a_file_of_something_else_is_not_touched(run, tmp_path):
    source, out = open_source("digits", count=30), tmp_path / "weights.npy"
    np.save(out, np.zeros(3))
    before = out.read_bytes()
    with pytest.raises(UserError, match=f"{out} is not a file of pseudo-labels"):
        label(run, source, out)
    assert out.read_bytes() == before and not header_path(out).exists()
    with pytest.raises(UserError, match=f"{tmp_path} is not a file of pseudo-labels"):
        label(run, source, tmp_path)
    with pytest.raises(UserError, match="cannot be written to: File exists"):
        label(run, source, out / "labels.npy")


def test_a_file_has_one_writer_at_a_time(run, tmp_path, monkeypatch):
    source, out = open_source("digits", count=250), tmp_path / "labels.npy"
    append = labelling.PseudoLabelsWriter.append
    refused = []

    def append_after_trying(writer, *arguments):
        if not refused:
            with pytest.raises(UserError, match="is being written by another") as error:
                label(run, source, out)
            refused.append(error)
        append(writer, *arguments)

    monkeypatch.setattr(labelling.PseudoLabelsWriter, "append", append_after_trying)
    labels, _ = label(run, source, out)
    assert refused and labels.readable.all()


def test_too_little_disk_space_is_reported_before_anything_is_labelled(
    run, tmp_path, monkeypatch
):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source, out = open_source("digits", count=250), tmp_path / "labels.npy"
    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        with pytest.raises(StorageError, match="cannot be written to: No space left"):
            label(run, source, out)
    assert label(run, source, out)[0].readable.all()


def test_a_teacher_whose_logits_are_nan_is_refused(run, tmp_path, monkeypatch):
    import jax

    def broken(*arguments, **options):
        loaded = load_run(*arguments, **options)
        broken = jax.tree.map(lambda leaf: leaf * np.nan, loaded.variables)
        return loaded._replace(variables=broken)

    load_run = labelling.load_run
    monkeypatch.setattr(labelling, "load_run", broken)
    with pytest.raises(UserError, match="its logits are not finite"):
        label(run, open_source("digits", count=30), tmp_path / "labels.npy")


def test_a_moved_run_and_image_folder_are_recognized(run, files, tmp_path):
    out = tmp_path / "labels.npy"
    label(run, files, out)
    before = contents(out)
    shutil.copytree(run, tmp_path / "moved")
    (tmp_path / "files").rename(tmp_path / "images")
    source = open_source(f"files:{tmp_path / 'images'}", labelled=False)
    _, printed = label(tmp_path / "moved", source, out)
    assert printed == ["230 of 230 images are labelled already."]
    assert contents(out) == before


@pytest.mark.slow
def test_four_devices_give_the_labels_of_one(run, tmp_path):
    source = open_source("digits", count=250)
    alone, _ = label(run, source, tmp_path / "alone.npy")
    paths = {"RUN": str(run), "LABELS": str(tmp_path / "shared.npy")}
    found = on_four_devices(PROGRAMS / "four_devices_label.py", **paths)
    assert found == {"devices": 4, "batch": [52, 52, 52, 52, 52]}
    shared = read_pseudo_labels(tmp_path / "shared.npy")
    np.testing.assert_allclose(shared.probabilities, alone.probabilities, atol=1e-6)


def command(*words):
    return main(["pseudo-label", *map(str, words)])


@pytest.fixture
def own_cache(monkeypatch):
    monkeypatch.setattr(
        "train.commands.pseudo_label.use_compilation_cache", lambda: None
    )


@pytest.mark.usefixtures("own_cache")
def test_the_command_labels_and_reports_and_does_not_label_again(
    run, files, tmp_path, capsys
):
    out = tmp_path / "labels.npy"
    words = [run, "--data", f"files:{tmp_path / 'files'}", "--out", out]
    assert command(*words) == 0
    shown = capsys.readouterr().out
    assert "unreadable" in shown and "confidence" in shown and "left out: " in shown
    assert "accuracy" not in shown
    before = contents(out)
    assert command(*words, "--batch-size", "7", "--threads", "1") == 0
    assert "230 of 230 images are labelled already." in capsys.readouterr().out
    assert contents(out) == before
    header = read_pseudo_labels(out).header
    assert (header["split"], header["part"], header["seed"]) == ("train", "all", 0)


@pytest.mark.usefixtures("own_cache")
def test_the_command_measures_accuracy_with_true_labels(run, tmp_path, capsys):
    out = tmp_path / "labels.npy"
    assert command(run, "--data", "digits", "--split", "test", "--out", out) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    evaluation, _ = evaluate_run(run)
    accuracy = 100 * evaluation.figures()["accuracy"]
    assert f"all 359 100.00 % {accuracy:.2f} %" in shown


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--data", "rest"],
            "No images are left over: the rest are the training images",
        ),
        (["--data", "digits", "--threads", "-1"], "--threads must be at least 0"),
        (["--data", "digitz"], "did you mean digits?"),
        (["--data", "files:nowhere"], "no such folder"),
        (["--data", "digits", "--ema", "--split", "val"], "has no val split"),
        (["--data", "rest", "--split", "test"], "there is no test split of them"),
    ],
)
def test_a_user_error_is_one_line_and_leaves_no_file(
    run, tmp_path, capsys, words, message
):
    assert command(run, *words, "--out", tmp_path / "labels.npy") == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture
def student(tiny, run, tmp_path):
    """A config with ten labels per class, and the other digits as `run` labels them."""
    options = Unlabelled(
        "rest", ratio=3, pseudo_labels=str(tmp_path / "labels.npy"), per_class=40
    )
    config = dataclasses.replace(
        tiny,
        input=dataclasses.replace(tiny.input, batch_size=20),
        selection=Selection(labels_per_class=10),
        unlabelled=options,
        augment=Augment(cutmix=1.0),
        epochs=2,
    )
    source = open_unlabelled(config, "rest")
    label(run, source, tmp_path / "labels.npy")
    return config


@pytest.mark.slow
def test_a_run_learns_from_pseudo_labels_and_resumes_exactly(
    student, tmp_path, quiet, monkeypatch
):
    program = build(student)
    assert program.unlabelled is not None
    soft = program.unlabelled.columns["label"]
    assert soft.shape == (len(program.unlabelled), 10) and soft.dtype == np.float32
    whole, _ = assert_resumes_to_the_same_end(student, tmp_path, 3, monkeypatch, quiet)
    lines = [line for line in read_metrics(whole) if line["split"] == "train"]
    assert lines and all("unlabelled_loss" in line for line in lines)


def test_a_run_is_not_resumed_with_another_teachers_labels(
    student, run, tmp_path, quiet, monkeypatch
):
    record = build(student).record
    out = Path(student.unlabelled.pseudo_labels)
    assert record["pseudo_labels"]["step"] == 14
    out.unlink()
    header_path(out).unlink()
    label(run, open_unlabelled(student, "rest"), out, ema=True)
    with pytest.raises(
        UserError, match="labels from another teacher than when the run"
    ):
        check_pseudo_labels(record, build(student).record)


def test_hard_labels_are_classes_and_a_file_of_other_images_is_refused(student):
    def unlabelled(**changed):
        options = dataclasses.replace(student.unlabelled, **changed)
        source = build(dataclasses.replace(student, unlabelled=options)).unlabelled
        assert source is not None
        return source.columns["label"]

    assert unlabelled(pseudo_label_kind="hard").dtype == np.int32
    with pytest.raises(UserError, match=r"other images .*: 1,338 images there, 1,438"):
        unlabelled(unlabelled="digits")
    with pytest.raises(UserError, match="above 1: the largest of 1,338 is 0."):
        unlabelled(min_confidence=1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("programs", "optimized")
def test_pseudo_labels_improve_on_few_labels(tmp_path, quiet):
    # 4 labels per digit. Measured: 70.5 to 76.9 % alone, 74.9 to 85.0 % with the rest.
    fields = {"stage_sizes": (1, 1), "width": 8, "small_inputs": True}
    gains = []
    for seed in range(3):
        alone = Config(
            input=Input(
                "digits", image_size=8, batch_size=40, mean=(0.305,), std=(0.376,)
            ),
            selection=Selection(labels_per_class=4),
            network=Network("resnet18", fields),
            augment=Augment(crop_padding=1),
            optimization=Optimization(warmup_epochs=1, weight_decay=5e-4),
            epochs=3,
            epoch_steps=80,
            seed=seed,
        )
        teacher, out = tmp_path / f"teacher{seed}", tmp_path / f"{seed}.npy"
        less = fit(alone, teacher, console=quiet)["accuracy"]
        label(teacher, open_unlabelled(alone, "rest"), out)
        options = Unlabelled(
            "rest", ratio=3, pseudo_labels=str(out), min_confidence=0.3, per_class=100
        )
        both = dataclasses.replace(alone, unlabelled=options)
        more = fit(both, tmp_path / f"student{seed}", console=quiet)["accuracy"]
        gains.append(more - less)
    assert np.mean(gains) > 0
