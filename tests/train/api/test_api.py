"""The programs as functions, against the files that they write and the command line."""

import base64
import dataclasses
import inspect
import io
import json
import logging
import re
import subprocess
import sys
from html import unescape

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import train
from cnn_flax.installing import install_command
from train.api.training import silent_orbax
from train.config import Augment, Config
from train.data import open_source
from train.errors import UserError

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture(scope="module")
def fitted(programs, tiny, tmp_path_factory):
    return train.fit(tiny, tmp_path_factory.mktemp("run") / "run", quiet=True)


def shown(table):
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()


def pictures(result):
    """The pictures in a result's HTML."""
    found = re.findall(r"data:image/png;base64,([^\"]+)", result._repr_html_())
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, train; train.fit; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", train.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert inspect.getdoc(getattr(train, name))
    assert name in dir(train)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        train.fitt  # noqa: B018


def test_replace_changes_fields_in_whichever_group_they_are():
    config = train.replace(Config(), learning_rate=0.5, epochs=3, flip=0.5)
    assert (config.optimization.learning_rate, config.epochs) == (0.5, 3)
    assert config.augment == Augment(flip=0.5)
    assert config.optimization.momentum == Config().optimization.momentum
    both = train.replace(Config(), augment=Augment(erase=0.1), flip=0.5)
    assert both.augment == Augment(erase=0.1, flip=0.5)
    # A field of the same name as its group.
    lwf = train.replace(Config(), transfer="lwf", init="published")
    assert (lwf.transfer.transfer, lwf.network.init) == ("lwf", "published")


def test_replace_refuses_unknown_fields_and_wrong_values():
    with pytest.raises(UserError, match="'learning_rat'. Did you mean 'learning_rate'"):
        train.replace(Config(), learning_rat=0.1)
    with pytest.raises(UserError, match="--learning-rate must be above 0"):
        train.replace(Config(), learning_rate=-1.0)


@pytest.mark.slow
def test_fit_gives_what_the_run_wrote(fitted):
    result = json.loads((fitted.run / "result.json").read_text())
    assert fitted.figures == result
    lines = (fitted.run / "metrics.jsonl").read_text().splitlines()
    assert fitted.metrics == [json.loads(line) for line in lines]
    assert fitted.paths["metrics"] == fitted.run / "metrics.jsonl"
    again = train.fit(fitted.config, fitted.run, quiet=True)
    assert again.figures == result


def test_the_log_of_orbax_is_off_in_a_run_and_then_as_it_was():
    log = logging.getLogger("absl")
    level = log.level
    with pytest.raises(ZeroDivisionError), silent_orbax():
        assert not log.isEnabledFor(logging.ERROR)
        raise ZeroDivisionError
    assert log.level == level


def test_a_result_is_a_line_a_table_and_html(fitted):
    accuracy = fitted.figures["accuracy"]
    assert f"accuracy={accuracy:.4g}" in repr(fitted)
    assert f"{100 * accuracy:.2f} %" in shown(fitted)
    html = fitted._repr_html_()
    assert f"{100 * accuracy:.2f} %" in html
    (curves,) = pictures(fitted)
    assert curves.width > 2 * curves.height  # Loss next to accuracy.


def test_html_without_matplotlib_says_how_to_get_it(fitted, monkeypatch):
    for name in ("train.run.plots", "matplotlib.figure"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    html = fitted._repr_html_()
    assert install_command("plots") in unescape(html)
    assert "base64" not in html


@pytest.mark.slow
def test_evaluate_gives_the_figures_of_the_run_and_of_its_images(fitted, capsys):
    from train.__main__ import main

    result = train.evaluate(fitted.run, quiet=True)
    for name in ("accuracy", "calibration_error"):
        assert result.figures[name] == pytest.approx(fitted.figures[name], abs=1e-3)
    rows = result.evaluation
    assert result.figures["accuracy"] == np.mean(rows.label == rows.prediction)
    np.testing.assert_array_equal(rows.label, open_source("digits", "test").labels)
    assert len(pictures(result)) == 2
    assert main(["evaluate", str(fitted.run)]) == 0
    accuracy = f"{100 * result.figures['accuracy']:.2f} %"
    assert accuracy in capsys.readouterr().out


def test_predict_gives_the_class_that_evaluation_finds(fitted, tmp_path):
    source = open_source("digits", "test")
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.fromarray(source.read(i).squeeze()).save(path)
    (tmp_path / "text.png").write_text("no image")
    result = train.predict(
        fitted.run, [*paths, tmp_path / "text.png"], skip_unreadable=True
    )
    found = train.evaluate(fitted.run, quiet=True).evaluation.prediction[:5]
    assert result.classes == [*(source.class_names[k] for k in found), None]
    assert np.isnan(result.probabilities[5]).all()
    assert result.figures == {"images": 6, "unreadable": 1}
    assert len(pictures(result)) == 1
    one = train.predict(fitted.run, str(paths[0]))
    np.testing.assert_array_equal(one.probabilities, result.probabilities[:1])
    with pytest.raises(UserError, match=r"text\.png cannot be read as an image"):
        train.predict(fitted.run, tmp_path / "text.png")


def test_pseudo_label_gives_the_figures_of_the_file(fitted, tmp_path):
    out = tmp_path / "labels.npy"
    result = train.pseudo_label(fitted.run, "digits", out, split="test", quiet=True)
    probabilities = np.load(out)
    right = probabilities.argmax(axis=1) == open_source("digits", "test").labels
    assert result.figures == {
        "images": len(probabilities),
        "unreadable": 0,
        "confidence": pytest.approx(probabilities.max(axis=1).mean()),
        "accuracy": pytest.approx(right.mean()),
    }
    assert result.paths == {"labels": out}
    assert "confidence 0." in shown(result)


def test_the_size_that_a_message_asks_for_is_an_argument(fitted, tmp_path, monkeypatch):
    for name in ("_BYTES", "_TIMES", "_allowed"):
        monkeypatch.setattr(f"cnn_flax.weights.unpacking.{name}", 0)
    images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 10
    np.savez_compressed(tmp_path / "x.npz", images=images, labels=labels)
    spec, options = f"npz:{tmp_path / 'x.npz'}", {"split": "train", "quiet": True}
    calls = (
        lambda **limit: train.evaluate(fitted.run, spec, **options, **limit),
        lambda **limit: train.pseudo_label(
            fitted.run, spec, tmp_path / "labels.npy", **options, **limit
        ),
    )
    for call in calls:
        monkeypatch.setattr("cnn_flax.weights.unpacking._allowed", 0)
        with pytest.raises(UserError, match="--max-unpacked-bytes N allows more"):
            call()
        assert call(max_unpacked_bytes=10_000).figures["images"] > 0


@pytest.mark.slow
def test_a_sweep_is_a_loop(tiny, tmp_path):
    results = {
        rate: train.fit(
            train.replace(tiny, learning_rate=rate, epochs=1), tmp_path / f"{rate}"
        )
        for rate in (1e-4, 0.1)
    }
    assert results[0.1].figures["loss"] < results[1e-4].figures["loss"]
    assert {r.config.optimization.learning_rate for r in results.values()} == {*results}


@pytest.mark.slow
def test_self_train_gives_its_models(tiny, tmp_path):
    config = train.replace(
        tiny, labels_per_class=30, unlabelled="rest", pseudo_labels="made in each round"
    )
    config = dataclasses.replace(config, epochs=2)
    student = train.NoisyStudent(config, (train.Student("resnet18"),))
    result = train.self_train(student, tmp_path / "out", quiet=True)
    stage = result.summary.models[-1]
    assert result.run == tmp_path / "out" / stage.stage
    again = train.evaluate(result.run, quiet=True).figures
    assert again["accuracy"] == pytest.approx(result.figures["accuracy"], abs=1e-3)
    assert len(pictures(result)) == 1
    assert "teacher" in shown(result)
