"""`cnn-flax export` writes files of runs and of weights, with what they need."""

import json

import jax
import numpy as np
import pytest

import cnn_flax
from cnn_flax.cli import main
from cnn_flax.weights.native import write
from cnn_flax.weights.variables import flatten
from tests.support.small_weights import SMALL, random_variables, save_run

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return save_run(folder, random_variables(), steps=(1,))


def call(capsys, *words):
    code = main(["export", *map(str, words)])
    out, err = capsys.readouterr()
    assert code == (2 if err else 0)
    assert err.count("\n") <= 1
    return err or out


def logits_of(run, levels):
    model, variables = cnn_flax.load_pretrained("resnet18", run)
    images = (levels / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    return model.apply(variables, images)


def levels():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)


def test_a_run_becomes_a_stablehlo_file(a_run, tmp_path, capsys):
    out = tmp_path / "digits.stablehlo"
    words = ("--out", out, "--format", "stablehlo", "--inside", "normalization")
    printed = call(capsys, a_run, *words)
    described = json.loads((tmp_path / "digits.stablehlo.json").read_text())
    assert f"JAX {jax.__version__} reads it" in printed
    assert described["readable_until"] in printed
    assert json.loads(described["class_names"]) == list("abcde")
    assert json.loads(described["image_size"]) == 16
    assert json.loads(described["mean"]) == [0.5]
    program = jax.export.deserialize(bytearray(out.read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    expected = logits_of(a_run, levels())
    np.testing.assert_allclose(program.call(levels()), expected, rtol=1e-5)


def test_a_run_becomes_an_onnx_file(a_run, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "digits.onnx"
    words = ("--out", out, "--format", "onnx", "--inside", "normalization")
    call(capsys, a_run, *words, "--batch-size", 2)
    session = onnxruntime.InferenceSession(out)
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["class_names"]) == list("abcde")
    assert session.get_inputs()[0].shape == [2, 16, 16, 3]
    (logits,) = session.run(["logits"], {"images": levels()})
    np.testing.assert_allclose(logits, logits_of(a_run, levels()), rtol=1e-4)


def test_a_file_of_weights_is_exported_at_another_size(tmp_path, capsys):
    fields = {**SMALL, "stage_sizes": (2, 2, 2, 2)}
    variables = random_variables(**{**fields, "width": 64})
    write(tmp_path / "net.safetensors", flatten(variables), {"model": "resnet18"})
    out = tmp_path / "net"
    words = ("--out", out, "--format", "stablehlo", "--platforms", "tpu")
    call(capsys, tmp_path / "net.safetensors", *words, "--image-size", 32)
    program = jax.export.deserialize(bytearray(out.read_bytes()))
    assert program.platforms == ("tpu",)
    assert program.in_avals[0].shape[1:] == (32, 32, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet18", "--format", "tflite"], "--format tflite is not offered"),
        (["resnet18", "--format", "saved_model"], "saved_model is not offered"),
        (["resnot18", "--format", "onnx"], "no model, run or file resnot18. Nearest"),
        (["{run}", "--format", "onnx", "--dtype", "bfloat16"], "of bfloat16"),
        (
            ["{run}", "--format", "onnx", "--weights", "x"],
            "--weights goes with a model",
        ),
        (["{run}", "--format", "stablehlo", "--platforms", "gpu"], "got gpu"),
    ],
)
def test_what_cannot_be_done_is_said(words, message, a_run, tmp_path, capsys):
    if "bfloat16" in words:
        pytest.importorskip("onnx")
    words = [word.format(run=a_run) for word in words]
    assert message in call(capsys, *words, "--out", tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_a_file_is_overwritten_by_force_alone(a_run, tmp_path, capsys):
    out = tmp_path / "net"
    out.write_text("kept")
    words = [a_run, "--out", out, "--format", "stablehlo", "--platforms", "cpu"]
    assert "--force overwrites it" in call(capsys, *words)
    assert out.read_text() == "kept"
    call(capsys, *words, "--force")
    assert out.read_bytes() != b"kept"


def test_a_folder_that_is_missing_is_said(a_run, tmp_path, capsys):
    out = tmp_path / "nowhere" / "net"
    words = [a_run, "--out", out, "--format", "stablehlo", "--platforms", "cpu"]
    assert "cannot be written" in call(capsys, *words)
