import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from safetensors.numpy import save_file

import cnn_flax
from cnn_flax import cli
from cnn_flax.weights.identify import identify_weights
from train.__main__ import main
from train.commands.evaluate import Evaluate
from train.config import Network
from train.data import DecodeError, open_source
from train.data.decode import fit as fit_image
from train.errors import UserError
from train.learn.starting_weights import load_starting_weights
from train.learn.teacher import open_teacher
from train.run.advice import starting_from
from train.run.inference import evaluate_model, evaluate_run, predict_images
from train.run.loop import fit
from train.run.run_folder import read_result

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture(scope="module")
def run(programs, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    config = dataclasses.replace(tiny, epochs=8)
    fit(config, folder, console=Console(file=io.StringIO()))
    return folder


@pytest.fixture
def digits(tmp_path):
    """The first four test images as files."""
    source = open_source("digits", "test")
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        Image.fromarray(source.read(i).squeeze()).save(path)
    return paths


class _Loaded(Exception):
    """Carries the weights that a program was about to load."""


@pytest.mark.parametrize("by", ["name", "content"])
def test_all_programs_take_a_file_for_the_same_published_weights(
    tmp_path, monkeypatch, capsys, by
):
    source = "timm resnet18.a1_in1k"
    file = tmp_path / ("resnet18.a1_in1k.bin" if by == "name" else "w.safetensors")
    metadata = {"source": source} if by == "content" else {}
    save_file({"params/head/kernel": np.zeros((512, 10))}, file, metadata)
    Image.new("RGB", (9, 9)).save(tmp_path / "image.png")
    found = []

    def load(weights, **fields):
        found.append(weights)
        raise _Loaded

    for module in (
        *(
            "cnn_flax.cli_commands",
            "cnn_flax.weights.pretrained",
            "train.run.inference",
        ),
        *("train.learn.teacher", "train.learn.starting_weights"),
    ):
        monkeypatch.setattr(f"{module}.load_identified", load)
    words = ["predict", "resnet18", str(tmp_path / "image.png"), "--weights", str(file)]
    digits = open_source("digits", "test")
    network = Network("resnet18", init=str(file))
    programs = [
        lambda: cli.main(words),
        lambda: cnn_flax.load_pretrained("resnet18", file),
        lambda: evaluate_model("resnet18", "digits", weights=str(file)),
        lambda: Evaluate("resnet18", data="digits", weights=str(file))(),
        lambda: open_teacher(f"resnet18={file}", digits, size=8, channels=1),
        lambda: load_starting_weights(network, 1, None),  # pyright: ignore
    ]
    for program in programs:
        with pytest.raises(_Loaded):
            program()
    assert [weights.entry.source for weights in found] == [source] * len(programs)
    assert all(weights.certain for weights in found)
    assert f"Images prepared as for {source}." in capsys.readouterr().out
    images = starting_from("digits", str(file), model="resnet18").input
    assert (images.interpolation, images.crop_pct) == ("bicubic", 0.95)


@pytest.mark.slow
def test_evaluating_a_run_repeats_its_result(run):
    result = read_result(run)
    assert result is not None
    evaluation, source = evaluate_run(run)
    assert len(source) == result["test_images"]
    figures = evaluation.figures()
    assert figures["accuracy"] == result["accuracy"]
    assert figures["loss"] == pytest.approx(result["loss"], rel=1e-5)


def test_the_batch_size_is_rounded_up_for_the_devices(run, monkeypatch):
    # The run's batch size of 100 becomes 102, as if there were three devices.
    sizes = []
    monkeypatch.setattr(
        "train.learn.parallel.Placement.round_up",
        lambda self, n: sizes.append(n) or 102,
    )
    evaluation, _ = evaluate_run(run)
    assert (sizes, len(evaluation.index)) == ([100], 359)


@pytest.mark.parametrize("command", [evaluate_run, predict_images])
def test_a_run_without_a_moving_average_is_refused(run, command):
    arguments = ([],) if command is predict_images else ()
    with pytest.raises(UserError, match="no moving average.*without --ema-decay"):
        command(run, *arguments, ema=True)


def test_a_source_of_other_classes_is_refused(run, tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / split / "cat" / "1.png")
    with pytest.raises(UserError, match="class 0 is cat there and 0 in the run"):
        evaluate_run(run, f"folder:{tmp_path}")


def test_a_file_that_cannot_be_read_leaves_the_others(run, digits, tmp_path, capsys):
    broken, absent = tmp_path / "broken.png", tmp_path / "absent.png"
    broken.write_bytes(digits[0].read_bytes()[:50])
    words = ["predict", run, digits[0], broken, *digits[1:], absent]
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert [out.count(f"{i}.png") for i in range(4)] == [1] * 4
    assert "broken.png" not in out
    assert [line.split()[0] for line in err.splitlines()] == [str(broken), str(absent)]
    assert main(["predict", str(run), str(broken)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"{broken} cannot be read as an image: ")
    assert main([*map(str, words[:3]), "--max-pixels", "9"]) == 0
    # A folder, for another program.
    broken.unlink()
    capsys.readouterr()
    assert main(["predict", str(run), str(tmp_path), "--json", "--top", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [image["image"] for image in found] == [str(path) for path in digits]
    assert [len(image["classes"]) for image in found] == [2] * 4


def test_files_get_the_predictions_of_the_data_set(run, digits):
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
    with pytest.raises(DecodeError, match=f"{broken} cannot be read as an image: "):
        predict_images(run, [digits[0], broken])


@pytest.mark.parametrize("command", [evaluate_run, predict_images])
def test_a_folder_without_a_run_is_refused(tmp_path, command):
    arguments = ([],) if command is predict_images else ()
    with pytest.raises(UserError, match="missing holds no run"):
        command(tmp_path / "missing", *arguments)


def test_another_split_can_be_evaluated(run):
    _, source = evaluate_run(run, split="train")
    assert len(source) == 1797 - 359


@pytest.mark.slow
def test_files_are_resized_as_in_the_run(programs, tiny, tmp_path, digits):
    options = dataclasses.replace(tiny.input, crop_pct=0.5, interpolation="nearest")
    config = dataclasses.replace(tiny, input=options, epochs=1)
    fit(config, tmp_path / "run", console=Console(file=io.StringIO()))
    probabilities, _ = predict_images(tmp_path / "run", digits)
    evaluation, _ = evaluate_run(tmp_path / "run")
    np.testing.assert_allclose(
        probabilities.max(1), evaluation.confidence[:4], rtol=1e-4
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a resnet18 of three classes with torch's names, and a data source."""
    model = cnn_flax.create_model("resnet18", num_classes=3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)

    def random(leaf):
        """Random kernels of about unit gain; scales, variances and biases are 1."""
        if leaf.ndim == 1:
            return np.ones(leaf.shape, leaf.dtype)
        gain = np.sqrt(leaf.shape[-1] / leaf.size)
        return rng.normal(0, gain, leaf.shape).astype(leaf.dtype)

    variables = jax.tree.map(random, shapes)
    tmp_path = tmp_path_factory.mktemp("weights")
    file = tmp_path / "weights.safetensors"
    save_file(dict(cnn_flax.weights.to_torch("resnet18", variables)), file)
    for i in range(6):
        path = tmp_path / "images" / "test" / f"class{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (300, 280, 3), np.uint8)).save(path)
    return file, f"folder:{tmp_path / 'images'}"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_a_model_with_weights_is_evaluated_on_any_source(mode, weights, monkeypatch):
    file, data = weights

    def identify(*arguments):
        return dataclasses.replace(identify_weights(*arguments), crop_mode=mode)

    monkeypatch.setattr("train.run.inference.identify_weights", identify)
    evaluation, source = evaluate_model("resnet18", data, weights=file, batch_size=4)
    assert len(evaluation.label) == len(source) == 6
    # As torchvision preprocesses: resized to 256, cropped to 224, bilinear.
    model, variables = cnn_flax.load_pretrained("resnet18", file)
    image = fit_image(source.read(5), 224, crop_pct=224 / 256, mode=mode)
    image = (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    logits = np.asarray(model.apply(variables, image[None]))[0]
    assert evaluation.prediction[5] == logits.argmax()
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert evaluation.confidence[5] == pytest.approx(probabilities.max(), rel=1e-3)


def test_weights_of_another_number_of_classes_are_refused(weights):
    with pytest.raises(UserError, match="has 3 classes by its weights, and digits has"):
        evaluate_model("resnet18", "digits", weights=weights[0])


@pytest.mark.slow
def test_the_command_evaluates_runs_and_models(run, weights, capsys, monkeypatch):
    monkeypatch.setattr("train.commands.evaluate.use_compilation_cache", lambda: None)
    file, data = weights
    words = [
        "evaluate",
        "resnet18",
        "--batch-size",
        "3",
        "--weights",
        str(file),
        "--data",
        data,
    ]
    assert main(words) == 0
    assert main(["evaluate", str(run), "--batch-size", "50"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("calibration error") == 2
    assert "class2" in shown
    assert main(words[:-2]) == 2
    assert "--data SOURCE" in capsys.readouterr().err
    assert main([*words, "--ema"]) == 2
    assert "--ema needs a run" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--weights", str(file)]) == 2
    assert "has its own weights" in capsys.readouterr().err
    assert main(["evaluate", "resnt18"]) == 2
    assert "It is not a model either. Nearest: resnet18" in capsys.readouterr().err
