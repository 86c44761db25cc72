import csv
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import train
from train.__main__ import main
from train.config import Distillation, Unlabelled
from train.config_file import read_record
from train.errors import UserError
from train.run.evaluation import Evaluation
from train.run.inference import evaluate_model, evaluate_run
from train.run.labelling import label_images
from train.run.loop import fit
from train.run.metrics import read_metrics
from train.run.multi_label import MultiLabelEvaluation
from train.run.program import build
from train.run.report import lowest_loss
from train.run.run_folder import read_result

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("programs")]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def config(tiny, tmp_path_factory):
    """A run on 240 images that are bright on the left, on the right, on both or not."""
    path = tmp_path_factory.mktemp("set") / "set.npz"
    labels = RNG.integers(0, 2, (240, 2))
    images = RNG.integers(0, 60, (240, 8, 8)).astype(np.uint8)
    images[:, :, :4] += (labels[:, :1, None] * 150).astype(np.uint8)
    images[:, :, 4:] += (labels[:, 1:, None] * 150).astype(np.uint8)
    np.savez(path, images=images, labels=labels, class_names=["left", "right"])
    return dataclasses.replace(
        tiny,
        input=dataclasses.replace(tiny.input, data=f"npz:{path}", batch_size=16),
        augment=dataclasses.replace(tiny.augment, flip=0, crop_padding=0, cutmix=0.5),
        network=dataclasses.replace(
            tiny.network,
            model_fields={**tiny.network.model_fields, "dropout_rate": 0.0},
        ),
        optimization=dataclasses.replace(
            tiny.optimization, ema_decay=0.9, label_smoothing=0.1
        ),
        epochs=12,
    )


@pytest.fixture(scope="module")
def run(programs, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    fit(config, folder, console=Console(file=io.StringIO()))
    return folder


def test_a_run_learns_several_classes_per_image(run):
    result = read_result(run)
    assert result["mean_average_precision"] > 0.95
    assert result["accuracy"] > 0.9  # A quarter of the images has each combination.
    assert np.isfinite(result["ema_mean_average_precision"])
    assert read_record(run)["multi_label"] is True
    lines = [line for line in read_metrics(run) if line["split"] == "test"]
    assert lines[-1]["mean_average_precision"] == result["mean_average_precision"]


def test_its_evaluation_is_that_of_the_run_in_any_batches(run):
    evaluation, source = evaluate_run(run, batch_size=7)
    np.testing.assert_array_equal(evaluation.index, np.arange(48))
    np.testing.assert_array_equal(evaluation.label, source.columns["label"])
    for name, value in evaluation.figures().items():
        np.testing.assert_allclose(value, read_result(run)[name], rtol=1e-5)


def test_it_predicts_each_class_of_its_own(run, tmp_path, capsys):
    pixels = np.full((8, 8), 180, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "both.png")
    Image.fromarray(pixels // 6).save(tmp_path / "none.png")
    files = [str(tmp_path / name) for name in ("both.png", "none.png")]
    probabilities = train.predict(run, files).probabilities
    assert (probabilities[0] > 0.5).all() and (probabilities[1] < 0.5).all()
    assert main(["predict", str(run), *files, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["class"] for row in rows} == {"left", "right"}


def test_evaluate_prints_and_draws_the_classes(run, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["evaluate", str(run), "--split", "train", "--report", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "mean average precision" in printed and "right" in printed
    assert "could not be drawn" not in printed
    text = page.read_text()
    assert "mean average precision of 192 train images" in text
    assert "Precision against recall" in text and "Worst images" in text
    plots = train.evaluate(run, quiet=True).plots()
    assert list(plots) == ["precision_recall"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"unlabelled": Unlabelled(unlabelled="rest", consistency="fixmatch")},
            "--unlabelled --consistency fixmatch needs one",
        ),
        ({"distillation": Distillation(teacher="resnet18")}, "--teacher needs one"),
    ],
)
def test_methods_that_need_one_class_per_image_say_so(config, changes, message):
    changed = dataclasses.replace(config, **changes)
    selection = dataclasses.replace(config.selection, count=100)
    changed = dataclasses.replace(changed, selection=selection)
    with pytest.raises(
        UserError, match=f"has several classes per image, and {message}"
    ):
        build(changed)


def test_commands_that_need_one_class_per_image_say_so(run, config, tmp_path, capsys):
    data = config.input.data
    with pytest.raises(UserError, match="has learned several classes per image"):
        label_images(run, evaluate_run(run)[1], tmp_path / "labels.npy")
    with pytest.raises(UserError, match="several classes per image, and resnet18's"):
        evaluate_model("resnet18", data)
    assert main(["advise", "--data", data, "--init", str(run)]) == 2
    assert "has several classes per image" in capsys.readouterr().err
    with pytest.raises(UserError, match="digits has one per image, and the run .* sev"):
        _evaluate_digits(run, config)


def _evaluate_digits(run, config):
    """Evaluates on single labels with the run's class names."""
    images = np.zeros((8, 8, 8), np.uint8)
    path = run.parent / "one.npz"
    labels = np.arange(8) % 2
    np.savez(path, images=images, labels=labels, class_names=["left", "right"])
    try:
        evaluate_run(run, f"npz:{path}")
    except UserError as error:
        raise UserError(str(error).replace(f"npz:{path}", "digits")) from error


def test_all_classes_of_mixed_images_are_for_several_per_image(tiny, config):
    def with_max(config):
        augment = dataclasses.replace(config.augment, cutmix=1.0, mixed_labels="max")
        return build(dataclasses.replace(config, augment=augment))

    assert with_max(config).config.augment.mixed_labels == "max"
    with pytest.raises(UserError, match="--mixed-labels max is for several classes"):
        with_max(tiny)


def made_up():
    label = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    probability = np.array(
        [[0.9, 0.2, 0.1], [0.3, 0.8, 0.1], [0.6, 0.7, 0.4], [0.1, 0.8, 0.2]]
    )
    loss = -np.log(np.where(label, probability, 1 - probability)).mean(axis=1)
    return MultiLabelEvaluation(np.arange(4), label, probability, loss)


def test_figures_are_those_of_their_definitions():
    evaluation = made_up()
    # Class 0: right at ranks 1 and 3. Class 1: 0.8 twice, one of them right; then 0.7.
    expected = [(1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2, np.nan]
    np.testing.assert_allclose(evaluation.average_precision(), expected)
    figures = evaluation.figures()
    assert figures["accuracy"] == 1 / 4
    np.testing.assert_allclose(
        figures["mean_average_precision"], np.nanmean(expected), rtol=1e-12
    )
    precision, recall = evaluation.precision_and_recall()
    np.testing.assert_allclose(precision, [1 / 2, 2 / 3, np.nan])
    np.testing.assert_allclose(recall, [1 / 2, 1, np.nan])
    assert evaluation.worst(1) == [np.argmax(evaluation.loss)]


def test_calibration_error_is_that_of_the_binary_decisions():
    evaluation = made_up()
    yes = evaluation.probability.ravel().astype(np.float32)
    label = evaluation.label.ravel()
    # A single-label evaluation whose "prediction" is the class itself.
    same = Evaluation(
        index=np.arange(12),
        label=label,
        prediction=np.ones(12, int),
        confidence=yes,
        rank=np.zeros(12, int),
        loss=np.zeros(12),
    )
    np.testing.assert_allclose(
        evaluation.calibration_error(), same.calibration_error(), rtol=1e-6
    )


def test_lowest_loss_of_smoothed_labels():
    record = {
        "config": {"optimization": {"label_smoothing": 0.1}},
        "class_names": ["a", "b", "c"],
        "multi_label": True,
    }
    expected = -(0.95 * np.log(0.95) + 0.05 * np.log(0.05))
    np.testing.assert_allclose(lowest_loss(record), expected)
