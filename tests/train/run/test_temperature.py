import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import train
from train.__main__ import main
from train.data import open_source
from train.errors import UserError
from train.run.calibrating import calibrate_run
from train.run.inference import evaluate_run
from train.run.loop import fit
from train.run.run_folder import read_result
from train.run.temperature import fit_temperature, scaled, temperature_of

RNG = np.random.default_rng(0)


def drawn(images=2000, classes=5):
    """Logits, and labels that are drawn from their softmax."""
    logits = 2 * RNG.normal(size=(images, classes))
    gumbel = RNG.gumbel(size=logits.shape)
    return logits, (logits + gumbel).argmax(1)


def test_the_temperature_has_the_lowest_loss():
    logits, labels = drawn()
    found = fit_temperature(3 * logits, labels)
    assert 2.7 < found < 3.3  # Labels are from a third of these logits.

    def loss(inverse):
        log_probs = jax.nn.log_softmax(3 * jnp.asarray(logits) * inverse)
        return -log_probs[jnp.arange(len(labels)), labels].mean()

    with jax.enable_x64():
        inverse = jnp.array(0.3)
        for _ in range(30):  # Newton's method: the loss is convex.
            inverse -= jax.grad(loss)(inverse) / jax.hessian(loss)(inverse)
    np.testing.assert_allclose(1 / found, inverse, rtol=1e-7)


def test_scaling_divides_logits_and_keeps_their_order():
    logits, _ = drawn(50)
    log_probs = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))
    np.testing.assert_allclose(
        scaled(log_probs, 2.5), jax.nn.log_softmax(jnp.asarray(logits) / 2.5), atol=1e-5
    )
    ruled_out = np.array([[0.0, -np.inf, -1.0]])
    assert np.exp(scaled(ruled_out, 7.0))[0, 1] == 0


@pytest.fixture(scope="module")
def run(programs, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    selection = dataclasses.replace(tiny.selection, val_share=0.2)
    config = dataclasses.replace(tiny, selection=selection, epochs=4)
    fit(config, folder, console=Console(file=io.StringIO()))
    return folder


@pytest.mark.slow
def test_a_calibrated_run_predicts_and_evaluates_with_its_temperature(
    run, tmp_path, capsys
):
    with pytest.raises(UserError, match="not calibrated at step .*calibrate"):
        evaluate_run(run, calibrated=True)
    before, source = evaluate_run(run, split="val")
    image = tmp_path / "digit.png"
    Image.fromarray(open_source("digits", "test").read(0).squeeze()).save(image)
    plain = train.predict(run, image).probabilities

    assert main(["calibrate", str(run)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "temperature" in printed and "calibration error" in printed
    saved = json.loads((run / "temperature.json").read_text())
    temperature = saved["temperature"]
    assert saved["images"] == len(source) and saved["split"] == "val"
    np.testing.assert_allclose(
        saved["loss_before"], before.figures()["loss"], rtol=1e-5
    )
    assert saved["loss"] <= saved["loss_before"]

    after, _ = evaluate_run(run, split="val", calibrated=True)
    np.testing.assert_array_equal(after.prediction, before.prediction)
    np.testing.assert_allclose(after.figures()["loss"], saved["loss"], rtol=1e-5)
    np.testing.assert_allclose(
        after.calibration_error(), saved["calibration_error"], rtol=1e-3
    )
    calibrated = train.predict(run, image).probabilities
    expected = np.exp(scaled(np.log(plain), temperature))
    np.testing.assert_allclose(calibrated, expected, rtol=1e-4)
    # Views are divided by it one by one, in both.
    mean = train.predict(run, image, tta="flip").probabilities[0]
    several, _ = evaluate_run(run, split="test", calibrated=True, tta="flip")
    np.testing.assert_allclose(mean.max(), several.confidence[0], rtol=1e-4)
    # Without the flag, an evaluation is that of the run's result.
    figures = evaluate_run(run)[0].figures()
    np.testing.assert_allclose(figures["loss"], read_result(run)["loss"], rtol=1e-5)
    # The temperature is of the checkpoint that it was fitted to.
    assert temperature_of(run, saved["step"] + 1) is None


@pytest.mark.slow
def test_images_that_the_run_is_judged_by_are_refused(run):
    for data in (None, "digits"):
        with pytest.raises(UserError, match="--split test: .* held-out images"):
            calibrate_run(run, data, "test")


@pytest.mark.parametrize("text", ["[]", '{"temperature": -1.0, "step": 3}', "{"])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "temperature.json").write_text(text)
    with pytest.raises(UserError, match="temperature.json"):
        temperature_of(tmp_path, 3)
