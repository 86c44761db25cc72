import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from train.data import ImageError, open_source
from train.errors import UserError
from train.folder import read_result
from train.inference import evaluate_run, predict_images
from train.loop import fit

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture(scope="module")
def run(programs, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    config = dataclasses.replace(tiny, epochs=8)
    fit(config, folder, console=Console(file=io.StringIO()))
    return folder


@pytest.fixture
def digits(tmp_path):
    """The first test images as files."""
    source = open_source("digits", "test")
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        Image.fromarray(source.read(i).squeeze()).save(path)
    return paths


def test_a_run_is_evaluated_as_it_was_when_it_ended(run):
    result = read_result(run)
    assert result is not None
    evaluation, source = evaluate_run(run)
    assert len(source) == result["test_images"]
    figures = evaluation.figures()
    assert figures["accuracy"] == result["accuracy"]
    assert figures["loss"] == pytest.approx(result["loss"], rel=1e-5)


def test_a_run_is_evaluated_where_the_devices_cannot_share_its_batch(run, monkeypatch):
    # The run's batch is 100: it becomes 102 on what seem to be three devices.
    sizes = []
    monkeypatch.setattr(
        "train.parallel.Placement.round_up", lambda self, n: sizes.append(n) or 102
    )
    evaluation, _ = evaluate_run(run)
    assert (sizes, len(evaluation.index)) == ([100], 359)


@pytest.mark.parametrize("command", [evaluate_run, predict_images])
def test_means_of_a_run_that_keeps_none_are_refused(run, command):
    arguments = ([],) if command is predict_images else ()
    with pytest.raises(UserError, match="no running means.*without --ema-decay"):
        command(run, *arguments, ema=True)


def test_a_source_of_other_classes_is_refused(run, tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / split / "cat" / "1.png")
    with pytest.raises(UserError, match="class 0 is cat there and 0 in the run"):
        evaluate_run(run, f"folder:{tmp_path}")


def test_files_are_predicted_as_the_images_of_the_set(run, digits):
    probabilities, names = predict_images(run, digits)
    evaluation, _ = evaluate_run(run)
    assert names == list("0123456789")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(1), evaluation.prediction[:4])
    np.testing.assert_allclose(
        probabilities.max(1), evaluation.confidence[:4], rtol=1e-4
    )


def test_an_unreadable_image_is_named(run, digits, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(digits[0].read_bytes()[:40])
    with pytest.raises(ImageError, match=f"{broken} cannot be read as an image: "):
        predict_images(run, [digits[0], broken])


@pytest.mark.parametrize("command", [evaluate_run, predict_images])
def test_a_folder_without_a_run_is_refused(tmp_path, command):
    arguments = ([],) if command is predict_images else ()
    with pytest.raises(UserError, match="missing holds no run"):
        command(tmp_path / "missing", *arguments)
