"""A whole Noisy Student, of two rounds, on the digits."""

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
from train.data.pseudo_label_file import choose
from train.data.select import open_unlabelled
from train.errors import UserError
from train.noisy_student import EACH_ROUND, NoisyStudent, Student
from train.noisy_student.plan import Train, plan
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
    """Where the images without labels are listed, as often as they are."""
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for module in ("train.data.select", "train.noisy_student.run"):

            def note(*args, module=module, **options):
                found.append(module)
                return open_unlabelled(*args, **options)

            patch.setattr(f"{module}.open_unlabelled", note)
        yield found


@pytest.fixture(scope="module")
def done(programs, tmp_path_factory, listings):
    """The folder of a Noisy Student that has ended, and what it told."""
    out = tmp_path_factory.mktemp("noisy") / "out"
    facts = run(STUDENT, out, recipe="tested", command="the command")
    assert listings == ["train.noisy_student.run"]
    return out, facts


@pytest.fixture(scope="module")
def unlabelled():
    return open_unlabelled(STUDENT.config, "rest")


def labels_of(out, number):
    return np.load(out / f"round{number}/labels.npy")


def test_a_teacher_labels_without_any_noise(done, unlabelled):
    out, _ = done
    for number, name in ((1, "round0/teacher"), (2, "round1/student")):
        model, variables = load_pretrained("resnet18", out / name)
        images = np.stack([unlabelled.read(i) for i in range(len(unlabelled))])
        logits = model.apply(variables, (images / 255 - 0.3) / 0.4)
        found = labels_of(out, number)
        np.testing.assert_allclose(found, jax.nn.softmax(logits), atol=1e-5)


def test_the_report_tells_what_the_runs_measured(done):
    out, facts = done
    assert [model.stage for model in facts.models] == [
        "round0/teacher",
        "round1/student",
        "round2/student",
        "final",
    ]
    for model in facts.models:
        evaluation, _ = evaluate_run(out / model.stage)
        assert model.accuracy == evaluation.figures()["accuracy"]
        assert (
            model.parameters == run_folder.read_result(out / model.stage)["parameters"]
        )
    assert json.loads((out / "report.json").read_text()) == facts.to_json()
    assert (out / "report.html").exists() and (out / "report.png").exists()


def test_the_report_tells_what_the_labels_are(done, unlabelled):
    out, facts = done
    for number, each in enumerate(facts.rounds, 1):
        rows = labels_of(out, number)
        classes, truth = rows.argmax(1), unlabelled.labels
        chosen = choose(rows, min_confidence=0.12, per_class=40, seed=0).indices
        kept = sorted(set(chosen))
        labels = each.labels
        assert labels.images == len(unlabelled) == len(rows)
        assert labels.accuracy == np.mean(classes == truth)
        assert labels.kept_accuracy == np.mean((classes == truth)[kept])
        assert labels.after == [list(classes[chosen]).count(k) for k in range(10)]
        assert labels.true == [list(truth).count(k) for k in range(10)]


def test_a_student_learned_from_the_chosen_images(done, unlabelled):
    out, _ = done
    config = plan(STUDENT, out)[2].config
    program = build(config)
    chosen = choose(labels_of(out, 1), min_confidence=0.12, per_class=40, seed=0)
    others = program.unlabelled
    assert others is not None
    np.testing.assert_array_equal(others.columns["label"], chosen.labels)
    for i in (0, 7, len(others) - 1):
        image = unlabelled.read(int(chosen.indices[i]))
        np.testing.assert_array_equal(others.read(i), image)


def test_the_last_stage_begins_where_the_last_student_ended(done):
    out, _ = done
    stage = plan(STUDENT, out)[-1]
    assert isinstance(stage, Train)
    _, variables = load_pretrained("resnet50", out / "round2/student")
    chex.assert_trees_all_equal(build(stage.config).init().variables, variables)


def test_the_same_command_does_nothing_again(done):
    out, facts = done

    def found():
        files = [path for path in out.rglob("*") if path.is_file()]
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in files
            if not path.name.startswith(("report.", "noisy_student.", "."))
        }

    before, page = found(), (out / "report.html").read_bytes()
    assert run(STUDENT, out, recipe="tested", command="the command") == facts
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
    """Of the first step of a run."""
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
def test_each_noise_is_on_while_a_student_learns(noisy, name):
    config, metrics = noisy
    if name.endswith("rate"):
        fields = {**config.network.model_fields, name: 0.0}
        quiet = replace(config, network=replace(config.network, model_fields=fields))
    else:
        quiet = replace(config, augment=replace(config.augment, **{name: 0}))
    without = metrics_of(quiet)
    for loss in ("loss", "unlabelled_loss"):
        assert metrics[loss] != without[loss]


def test_the_policy_is_on_while_a_student_learns(noisy):
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
def test_what_would_stop_a_later_stage_stops_it_before_the_first(
    tmp_path, quiet, changes, message
):
    with pytest.raises(UserError, match=message):
        run(replace(STUDENT, **changes), tmp_path / "out", console=quiet)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_alone(tmp_path, quiet):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty, and holds no Noisy Student"):
        run(STUDENT, tmp_path, console=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
