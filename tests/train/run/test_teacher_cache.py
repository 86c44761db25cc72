import dataclasses

import chex
import jax
import numpy as np
import pytest

from tests.support.runs import (
    assert_same_end,
    interrupt_at,
    last_checkpoint,
    untrained_run,
)
from train.config import (
    Augment,
    Distillation,
    Network,
    Selection,
    Unlabelled,
)
from train.errors import Interrupted, UserError
from train.learn.objectives import OBJECTIVE
from train.learn.teacher import open_teacher, teacher_pass
from train.run.inference import evaluate_run
from train.run.loop import fit
from train.run.metrics import read_metrics
from train.run.program import build
from train.run.teacher_cache import with_teacher_logits

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture(scope="module")
def config(tiny, tmp_path_factory):
    """A run of 4 steps with a teacher of another architecture and normalisation."""
    teacher = dataclasses.replace(
        tiny,
        input=dataclasses.replace(tiny.input, mean=(0.1,), std=(0.7,)),
        network=Network(
            "densenet121",
            {"stage_sizes": (1,), "growth_rate": 4, "small_inputs": True},
        ),
    )
    folder = untrained_run(tmp_path_factory.mktemp("teacher") / "run", teacher)
    return dataclasses.replace(
        tiny,
        input=dataclasses.replace(tiny.input, batch_size=20),
        network=Network(
            "resnet18", {"stage_sizes": (1,), "width": 4, "small_inputs": True}
        ),
        selection=Selection(labels_per_class=4),
        augment=Augment(),
        unlabelled=Unlabelled("rest", ratio=2),
        distillation=Distillation(str(folder)),
        epochs=2,
        log_every=1,
    )


def cached(config):
    options = dataclasses.replace(config.distillation, cache_teacher=True)
    return dataclasses.replace(config, distillation=options)


def files(run):
    return {path.name: path.stat().st_mtime_ns for path in run.glob("*.npy")}


def test_each_images_logits_are_cached(config, tmp_path):
    program = build(cached(config))
    teacher = open_teacher(
        config.distillation.teacher, program.train, size=8, channels=1
    )
    # The step does not run the teacher.
    assert program.shapes.teacher is None
    with_logits = with_teacher_logits(program, tmp_path)
    before = files(tmp_path)
    assert set(before) == {"teacher_logits_train.npy", "teacher_logits_unlabelled.npy"}
    teach = jax.jit(teacher_pass(teacher, teacher.mean, teacher.std))
    for source in (with_logits.train, with_logits.unlabelled):
        assert source is not None
        rows = source.columns["teacher_logits"]
        assert rows.shape == (len(source), 10)
        images = np.stack([source.read(i) for i in range(40)]) / np.float32(255)
        logits, _ = teach(teacher.variables, (images - 0.1) / np.float32(0.7))
        np.testing.assert_allclose(rows[:40], logits, rtol=1e-3, atol=1e-4)
    with_teacher_logits(program, tmp_path)
    assert files(tmp_path) == before


@pytest.mark.slow
@pytest.mark.long
def test_training_on_cached_logits_equals_computing_them_and_resumes_exactly(
    config, tmp_path, quiet, monkeypatch
):
    names = ("computed", "from_cache", "run")
    computed, from_cache, run = (tmp_path / name for name in names)
    fit(config, computed, console=quiet)
    fit(cached(config), from_cache, console=quiet)
    # Up to rounding, which grows over four steps.
    for line, other in zip(
        read_metrics(from_cache), read_metrics(computed), strict=True
    ):
        for name in ("loss", "unlabelled_loss", "gradient_norm"):
            if name in line:
                assert line[name] == pytest.approx(other[name], rel=1e-3)

    interrupt_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        fit(cached(config), run, console=quiet)
    before = files(run)
    fit(cached(config), run, console=quiet)
    assert files(run) == before
    assert_same_end(run, from_cache, cached(config))


@pytest.mark.slow
@pytest.mark.long
def test_a_run_with_a_hint_resumes_exactly(config, tmp_path, quiet, monkeypatch):
    options = dataclasses.replace(
        config.distillation, distillation="hint", hint_at="stage1"
    )
    config = dataclasses.replace(
        config, distillation=options, augment=Augment(flip=0.5, mixup=0.2)
    )
    uninterrupted, run = tmp_path / "uninterrupted", tmp_path / "run"
    result = fit(config, uninterrupted, console=quiet)
    interrupt_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        fit(config, run, console=quiet)
    fit(config, run, console=quiet)
    assert_same_end(run, uninterrupted, config)
    _, state = last_checkpoint(run, config)
    assert OBJECTIVE in state.params and state.teacher is None
    evaluation, _ = evaluate_run(run)
    assert evaluation.figures()["accuracy"] == result["accuracy"]


@pytest.mark.slow
def test_labels_of_unlabelled_images_are_never_used(config):
    # With Mixup, which would carry the labels into the loss.
    program = build(dataclasses.replace(config, augment=Augment(mixup=0.2)))
    assert program.unlabelled is not None
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 60)
    batch = {
        "image": rng.integers(0, 256, (20, 8, 8, 1), np.uint8),
        "label": labels[:20],
        "index": np.arange(20),
    }
    others = {
        "image": rng.integers(0, 256, (40, 8, 8, 1), np.uint8),
        "label": labels[20:],
        "index": np.arange(40),
        "image_index": np.arange(40),
    }
    step = jax.jit(program.train_step)
    ends = [
        step(
            program.init(),
            {**batch, "unlabelled": {**others, "label": wrong}},
            program.key,
        )
        for wrong in (labels[20:], 9 - labels[20:], -np.ones_like(labels[20:]))
    ]
    chex.assert_trees_all_equal(*ends)


def test_logits_are_cached_only_if_images_never_change(config, tmp_path, quiet):
    changed = dataclasses.replace(
        cached(config), augment=Augment(flip=0.5, policy="rand_augment")
    )
    with pytest.raises(UserError, match="change images at random: --flip, --policy"):
        fit(changed, tmp_path / "run", console=quiet)
    larger = dataclasses.replace(config.input, load_size=12)
    with pytest.raises(UserError, match="change images at random: --load-size"):
        build(dataclasses.replace(cached(config), input=larger))


def test_cached_logits_of_other_images_are_refused(config, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    np.save(run / "teacher_logits_train.npy", np.zeros((3, 10), np.float32))
    program = build(cached(config))
    with pytest.raises(UserError, match=r"shape \[3, 10\], .* need \[40, 10\]"):
        with_teacher_logits(program, run)


def test_the_flags_of_distillation_need_a_teacher(tiny):
    with pytest.raises(UserError, match="distillation need --teacher"):
        dataclasses.replace(tiny, distillation=Distillation(temperature=2.0))
    with pytest.raises(UserError, match="a hint needs features"):
        Distillation("run", distillation="hint", cache_teacher=True)
