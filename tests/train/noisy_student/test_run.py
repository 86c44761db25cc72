"""A complete Noisy Student with two rounds on the digits."""

import contextlib
import json
from dataclasses import replace

import chex
import jax
import numpy as np
import pytest

from cnn_flax import load_pretrained
from train.config import (
    Augment,
    Config,
    Input,
    Network,
    Optimization,
    Selection,
    Unlabelled,
)
from train.data.pseudo_label_file import select_pseudo_labels
from train.data.select import open_unlabelled
from train.errors import UserError
from train.noisy_student import EACH_ROUND, NoisyStudent, Student
from train.noisy_student.plan import TrainStage, plan
from train.noisy_student.run import run
from train.run import run_folder
from train.run.inference import evaluate_run
from train.run.program import build
from train.run.training_batches import training_batches

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.usefixtures("programs")]

FIELDS = {
    "stage_sizes": (1, 1),
    "width": 4,
    "small_inputs": True,
    "dropout_rate": 0.5,
    "drop_path_rate": 0.5,
}
STUDENT = NoisyStudent(
    Config(
        input=Input("digits", image_size=8, batch_size=50, mean=(0.3,), std=(0.4,)),
        selection=Selection(labels_per_class=5),
        network=Network("resnet18", FIELDS),
        augment=Augment(crop_padding=1, flip=0.5, erase=0.5),
        optimization=Optimization(warmup_epochs=1),
        unlabelled=Unlabelled(
            "rest",
            ratio=2,
            pseudo_labels=EACH_ROUND,
            min_confidence=0.12,
            per_class=40,
        ),
        epochs=2,
        epoch_steps=10,
        log_every=5,
    ),
    (Student("resnet18", {"width": 6}), Student("resnet50", {"width": 6})),
    finetune_size=10,
    finetune_steps=4,
)


@pytest.fixture(scope="module")
def listings():
    """The module that lists the unlabelled images, once per listing."""
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for module in ("train.data.select", "train.noisy_student.run"):

            def spy(*args, module=module, **options):
                found.append(module)
                return open_unlabelled(*args, **options)

            patch.setattr(f"{module}.open_unlabelled", spy)
        yield found


@pytest.fixture(scope="module")
def done(programs, tmp_path_factory, listings):
    """The folder of a completed Noisy Student, and its summary."""
    out = tmp_path_factory.mktemp("noisy") / "out"
    summary = run(STUDENT, out, recipe="tested", command="the command")
    assert listings == ["train.noisy_student.run"]
    return out, summary


@pytest.fixture(scope="module")
def unlabelled():
    return open_unlabelled(STUDENT.config, "rest")


def labels_of(out, number):
    return np.load(out / f"round{number}/labels.npy")


def test_a_teacher_labels_without_noise(done, unlabelled):
    out, _ = done
    for number, name in ((1, "round0/teacher"), (2, "round1/student")):
        model, variables = load_pretrained("resnet18", out / name)
        images = np.stack([unlabelled.read(i) for i in range(len(unlabelled))])
        logits = model.apply(variables, (images / 255 - 0.3) / 0.4)
        found = labels_of(out, number)
        np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=1e-5)


def test_the_report_has_the_figures_of_the_runs(done):
    out, summary = done
    assert [model.stage for model in summary.models] == [
        "round0/teacher",
        "round1/student",
        "round2/student",
        "final",
    ]
    for model in summary.models:
        evaluation, _ = evaluate_run(out / model.stage)
        assert model.accuracy == evaluation.figures()["accuracy"]
        assert (
            model.parameters == run_folder.read_result(out / model.stage)["parameters"]
        )
    assert json.loads((out / "report.json").read_text()) == summary.to_json()
    assert (out / "report.html").exists() and (out / "report.png").exists()


def test_the_report_has_the_counts_of_the_labels(done, unlabelled):
    out, summary = done
    for number, each in enumerate(summary.rounds, 1):
        rows = labels_of(out, number)
        classes, truth = rows.argmax(1), unlabelled.labels
        selected = select_pseudo_labels(
            rows, min_confidence=0.12, per_class=40, seed=0
        ).indices
        kept = sorted(set(selected))
        labels = each.labels
        assert labels.images == len(unlabelled) == len(rows)
        assert labels.accuracy == np.mean(classes == truth)
        assert labels.kept_accuracy == np.mean((classes == truth)[kept])
        assert labels.after == [list(classes[selected]).count(k) for k in range(10)]
        assert labels.true == [list(truth).count(k) for k in range(10)]


def test_a_student_was_trained_on_the_selected_images(done, unlabelled):
    out, _ = done
    config = plan(STUDENT, out)[2].config
    program = build(config)
    selected = select_pseudo_labels(
        labels_of(out, 1), min_confidence=0.12, per_class=40, seed=0
    )
    others = program.unlabelled
    assert others is not None
    np.testing.assert_array_equal(others.columns["label"], selected.labels)
    for i in (0, 7, len(others) - 1):
        image = unlabelled.read(int(selected.indices[i]))
        np.testing.assert_array_equal(others.read(i), image)


def test_the_final_stage_starts_from_the_last_students_weights(done):
    out, _ = done
    stage = plan(STUDENT, out)[-1]
    assert isinstance(stage, TrainStage)
    _, variables = load_pretrained("resnet50", out / "round2/student")
    chex.assert_trees_all_equal(build(stage.config).init().variables, variables)


def test_the_same_command_does_nothing_again(done):
    out, summary = done

    def found():
        files = [path for path in out.rglob("*") if path.is_file()]
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in files
            if not path.name.startswith(("report.", "noisy_student.", "."))
        }

    before, page = found(), (out / "report.html").read_bytes()
    assert run(STUDENT, out, recipe="tested", command="the command") == summary
    assert found() == before
    assert (out / "report.html").read_bytes() == page


def test_other_flags_are_refused(done):
    out, _ = done
    config = replace(STUDENT.config, epochs=3)
    with pytest.raises(UserError, match="--epochs is 2 there and 3 here"):
        run(replace(STUDENT, config=config), out, recipe="tested")
    with pytest.raises(UserError, match="--students is resnet18 width=6 resnet50"):
        run(replace(STUDENT, students=STUDENT.students[:1]), out, recipe="tested")


def metrics_of(config):
    """Metrics of the first step of a run."""
    program = build(config)
    with contextlib.closing(training_batches(program)) as batches:
        step = jax.jit(program.train_step)
        _, metrics = step(program.init(), next(batches), program.key)
    return jax.device_get(metrics)


@pytest.fixture(scope="module")
def noisy(done):
    """The config of a student, and its first metrics."""
    config = plan(STUDENT, done[0])[2].config
    return config, metrics_of(config)


@pytest.mark.parametrize("name", ["dropout_rate", "drop_path_rate", "erase"])
def test_each_noise_is_on_in_a_students_training(noisy, name):
    config, metrics = noisy
    if name.endswith("rate"):
        fields = {**config.network.model_fields, name: 0.0}
        quiet = replace(config, network=replace(config.network, model_fields=fields))
    else:
        quiet = replace(config, augment=replace(config.augment, **{name: 0}))
    without = metrics_of(quiet)
    for loss in ("loss", "unlabelled_loss"):
        assert metrics[loss] != without[loss]


def test_the_policy_is_on_in_a_students_training(noisy):
    config, metrics = noisy
    augment = replace(config.augment, policy="rand_augment")
    more = metrics_of(replace(config, augment=augment))
    for loss in ("loss", "unlabelled_loss"):
        assert metrics[loss] != more[loss]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": (Student("resnet19"),)}, "Nearest: resnet18"),
        ({"students": (Student("resnet18", {"depth": 3}),)}, "depth"),
        (
            {"students": (Student("resnet18", {"width": 3}),)},
            "round1/student has 817 parameters, and its teacher 1,382",
        ),
    ],
)
def test_errors_of_later_stages_are_raised_before_the_first(
    tmp_path, quiet, changes, message
):
    with pytest.raises(UserError, match=message):
        run(replace(STUDENT, **changes), tmp_path / "out", console=quiet)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_unchanged(tmp_path, quiet):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty, and holds no Noisy Student"):
        run(STUDENT, tmp_path, console=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
