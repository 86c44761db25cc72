import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import train
from cnn_flax.weights.identify import identify_weights
from train.__main__ import main
from train.api.advising import AdviseResult, recommended
from train.config import Augment, Config, Input, Network
from train.data import open_source
from train.errors import UserError
from train.run.advice import (
    advise,
    judge,
    nearest_mean,
    starting_from,
    wilson_interval,
)
from train.run.loop import fit

pytestmark = pytest.mark.usefixtures("programs")

FIELDS = {"stage_sizes": (1,), "width": 8, "small_inputs": True}


@pytest.mark.parametrize(
    ("least", "gain", "accuracy", "method"),
    [
        (49, 0.5, 0.9, "features"),
        (50, 0.5, 0.9, "fine_tune"),
        (500, 0.9, 0.9, "fine_tune"),
        (10, 0.3, 0.5, "features"),
        (50, 0.3, 0.5, "fine_tune"),
        (10, 0.16, 0.5, "fine_tune"),
        (499, -1.0, 0.5, "fine_tune"),
        (500, 0.1, 0.5, "scratch"),
        (5000, 0.1, 0.99, "features"),
    ],
)
def test_the_method_follows_from_amount_and_nearness(least, gain, accuracy, method):
    assert judge(least, gain, accuracy)[0] == method


def test_the_interval_holds_all_shares_that_do_not_contradict_the_images():
    # Wilson: the shares p whose score is at most 1.96.
    for share, count in ((1.0, 2), (0.5, 2), (0.9, 100), (0.0, 6)):
        p = np.linspace(0, 1, 100_001)[1:-1]
        score = abs(share - p) / np.sqrt(p * (1 - p) / count)
        inside = p[score <= 1.96]
        found = wilson_interval(share, count)
        np.testing.assert_allclose(found, (inside[0], inside[-1]), atol=2e-5)


def test_the_command_has_what_differs_from_the_recipe(tmp_path):
    config = Config(
        input=Input(data="folder:my photos", image_size=176, crop_pct=0.5),
        network=Network("resnet18", {"width": 16, "stage_sizes": (1, 1)}, "w.npz"),
    )

    def command(method):
        recipe, wanted = recommended(method, config)
        result = AdviseResult("", {}, {}, None, config, recipe, wanted)  # pyright: ignore
        return result.command

    assert command("features") == (
        "python -m train features_folder --data 'folder:my photos' --image-size 176 "
        "--crop-pct 0.5 --model resnet18 --model-fields width=16 'stage_sizes=(1,1)' "
        "--init w.npz --out runs/features_folder"
    )
    assert "--load-size 352" in command("fine_tune")
    assert "--init" not in command("scratch")


def test_the_nearest_mean_matches_a_loop():
    rng = np.random.default_rng(0)
    features, others = rng.normal(size=(30, 5)), rng.normal(size=(9, 5))
    labels = rng.integers(0, 3, 30)
    centre = sum(features) / 30
    expected = []
    for other in others:
        cosines = []
        for k in range(3):
            mean = np.zeros(5)
            for row, label in zip(features, labels, strict=True):
                if label == k:
                    mean += (row - centre) / np.linalg.norm(row - centre)
            cosines.append((other - centre) @ mean / np.linalg.norm(mean))
        expected.append(np.argmax(cosines))
    np.testing.assert_array_equal(nearest_mean(features, labels, others), expected)


def test_unreadable_images_are_ignored():
    features = np.array([[1.0, 0], [0, 1], [np.nan, np.nan], [-1, -1]])
    found = nearest_mean(features, np.array([0, 2, 2, 1]), features)
    np.testing.assert_array_equal(found, [0, 2, -1, 1])


@pytest.fixture(scope="module")
def source(programs, tiny, tmp_path_factory):
    """A run to start from, on the digits as well."""
    run = tmp_path_factory.mktemp("source") / "run"
    config = dataclasses.replace(
        tiny, network=Network("resnet18", FIELDS), augment=Augment(), epochs=6
    )
    fit(config, run, console=Console(file=io.StringIO()))
    return run


@pytest.mark.slow
def test_a_run_provides_its_model_and_its_preprocessing(source):
    config = starting_from("digits", str(source), seed=3)
    assert config.network.init == str(source)
    assert config.network.model == "resnet18"
    assert config.network.model_fields["width"] == 8
    assert (config.input.image_size, config.input.mean) == (8, (0.3,))
    assert (config.selection.eval_split, config.selection.val_share) == ("val", 0.2)
    assert starting_from("digits", str(source), image_size=16).input.image_size == 16


def test_grey_images_get_the_mean_over_the_channels(monkeypatch, tmp_path):
    # Identifying published weights does not read them: no download is needed.
    find_published = "cnn_flax.weights.identify.find_published"
    monkeypatch.setattr(find_published, lambda name: tmp_path / "model.safetensors")
    config = starting_from("digits", "published", model="tf_efficientnet_b0")
    assert config.input.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))


def test_images_are_squashed_where_the_weights_expect_it(monkeypatch, tmp_path):
    file = tmp_path / "model.safetensors"
    find = "cnn_flax.weights.identify.find_published"
    monkeypatch.setattr(find, lambda name: file)

    def identify(*arguments):
        return dataclasses.replace(identify_weights(*arguments), crop_mode="squash")

    monkeypatch.setattr("train.run.advice.identify_weights", identify)
    config = starting_from("digits", "published", model="tf_efficientnet_b0")
    assert config.input.crop_mode == "squash"


def test_the_size_that_a_message_asks_for_is_an_argument(source, tmp_path, monkeypatch):
    for name in ("_BYTES", "_TIMES", "_allowed"):
        monkeypatch.setattr(f"cnn_flax.weights.unpacking.{name}", 0)
    images, labels = np.zeros((50, 8, 8), np.uint8), np.arange(50) % 10
    np.savez_compressed(tmp_path / "x.npz", images=images, labels=labels)
    spec = f"npz:{tmp_path / 'x.npz'}"
    with pytest.raises(UserError, match="--max-unpacked-bytes N allows more"):
        train.advise(spec, str(source), quiet=True)
    # The pixels as the features, which need no compilation.
    pixels = lambda images: images.reshape(len(images), -1)  # noqa: E731
    steps = {"pixels": pixels, "weights": pixels}
    monkeypatch.setattr("train.run.advice._steps", lambda *_: steps)
    result = train.advise(spec, str(source), max_unpacked_bytes=10_000, quiet=True)
    # Of five images per class, one is a test image and one is held out.
    assert result.figures["images"] == 30
    assert "--max-unpacked-bytes 10000" in result.command


def test_at_least_one_image_is_probed():
    with pytest.raises(UserError, match="--images must be at least 1, got 0"):
        train.advise("digits", "published", images=0)


def test_published_weights_need_a_model():
    with pytest.raises(UserError, match="--init published needs the --model"):
        starting_from("digits", "published")


def test_the_probe_uses_training_images_only(source):
    config = starting_from("digits", str(source))
    advice = advise(config, images=200)
    assert advice.probed == (200, 200)
    held_out = open_source("digits", "val", val_share=0.2)
    assert advice.images + len(held_out) + 359 == 1797
    assert advice.classes == 10
    assert set(advice.accuracy) == {"chance", "pixels", "random weights", "weights"}
    assert 0.1 <= advice.accuracy["chance"] < 0.2
    assert advice.accuracy["pixels"] > 0.7
    assert advice.accuracy["weights"] > advice.accuracy["random weights"]
    best = max(advice.accuracy[name] for name in ("pixels", "random weights"))
    gain = (advice.accuracy["weights"] - best) / (1 - best)
    assert advice.gain == pytest.approx(gain)
    again = train.advise("digits", str(source), images=200, quiet=True)
    assert again.advice == advice and again.probed == config
    assert again.figures["accuracy"] == advice.accuracy["weights"]
    assert again.figures["method"] == advice.method
    assert again.config.network == config.network
    assert again.config.input.data == "digits"


@pytest.mark.slow
@pytest.mark.long
def test_the_command_advises_and_tries_both(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("train.commands.advise.use_compilation_cache", lambda: None)
    words = ["advise", "--data", "digits", "--init", str(source), "--images", "50"]
    out = tmp_path / "advise"
    assert main([*words, "--try-both", "--steps", "5", "--out", str(out)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "nearest mean, weights",
        "recommended",
        "features",
        "fine_tune",
        "(best)",
    ):
        assert text in shown
    assert (out / "features" / "features_train.npy").exists()
    assert (out / "fine_tune" / "result.json").exists()


def test_a_user_error_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("train.commands.advise.use_compilation_cache", lambda: None)
    words: Any = ["advise", "--data", "digits", "--init", str(tmp_path)]
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
