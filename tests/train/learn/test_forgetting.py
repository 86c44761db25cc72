import contextlib
import dataclasses
import io
import signal
from types import SimpleNamespace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import cnn_flax
from cnn_flax import load_pretrained
from tests.support.runs import untrained_run
from tests.support.small_models import forward, random_variables
from train.config import Augment, Config, Input, Network, Optimization, Transfer
from train.data import open_source
from train.errors import Interrupted, UserError
from train.learn.forgetting import (
    _with_old_head_in_backbone,
    head_of,
    with_old_head,
    without_forgetting,
)
from train.learn.objectives import OBJECTIVE
from train.learn.step import TrainState
from train.learn.transfer import Layers, find_layers
from train.run.checkpoint import Checkpoints
from train.run.inference import evaluate_run
from train.run.loop import fit
from train.run.program import build

pytestmark = pytest.mark.usefixtures("programs")

FIELDS = {"stage_sizes": (1,), "width": 4, "small_inputs": True}
SHAPE = (8, 8, 1)
KEY = jax.random.key(0)


def nets(**fields) -> Any:
    """The new model, of 3 classes, and the old one, of 5."""
    make = cnn_flax.create_model
    return [make("resnet18", num_classes=k, **FIELDS, **fields) for k in (3, 5)]


def state_of(new, old, step=0) -> TrainState:
    variables: Any = random_variables(new, 1, *SHAPE)
    teacher: Any = random_variables(old, 1, *SHAPE)
    head = head_of(find_layers(old, SHAPE), teacher)
    params = {**variables["params"], OBJECTIVE: {"old_head": head}}
    return TrainState(
        step=jnp.asarray(step),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=(),
        teacher=teacher,
    )


def batch() -> Any:
    images = jax.random.normal(jax.random.key(1), (6, *SHAPE))
    return {"image": images, "label": jnp.asarray([0, 1, 2, 0, 1, 2])}


def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def test_the_loss_is_that_of_the_paper_by_hand(float64):
    new, old = nets(dtype=jnp.float64)
    state, rows = state_of(new, old), batch()
    objective = without_forgetting(
        new, old, find_layers(new, SHAPE), SHAPE, weight=0.5, temperature=2.0
    )
    total, (changes, metrics) = jax.jit(objective)(state.params, state, rows, KEY)
    logits, sown, statistics = forward(new, state.variables, rows["image"], True)
    head = state.params[OBJECTIVE]["old_head"]["head"]
    features = np.asarray(sown["pre_logits"], np.float64)
    old_logits = features @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    targets = np.asarray(forward(old, state.teacher, rows["image"])[0])
    p, q = log_softmax(targets / 2), log_softmax(old_logits / 2)
    old_loss = 4 * (np.exp(p) * (p - q)).sum(1).mean()
    loss = -log_softmax(logits)[np.arange(6), rows["label"]].mean()
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-9)
    np.testing.assert_allclose(metrics["old_loss"], old_loss, rtol=1e-9)
    np.testing.assert_allclose(total, loss + 0.5 * old_loss, rtol=1e-9)
    chex.assert_trees_all_close(changes["batch_stats"], statistics)


def test_the_old_loss_is_zero_before_the_first_step():
    new, old = nets(dropout_rate=0.0)
    state = state_of(new, old)
    # The old model's backbone and statistics.
    backbone = {k: v for k, v in state.teacher["params"].items() if k != "head"}
    params = {**state.params, **backbone}
    statistics = state.teacher["batch_stats"]
    state = dataclasses.replace(state, params=params, batch_stats=statistics)
    objective = without_forgetting(
        new, old, find_layers(new, SHAPE), SHAPE, freeze_bn=True
    )
    rows = batch()

    @jax.jit
    @jax.value_and_grad
    def old_loss(params):
        return objective(params, state, rows, KEY)[1][1]["old_loss"]

    loss, gradients = old_loss(params)
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_allclose(leaf, 0, atol=1e-5)


def test_noise_is_on_for_the_new_model_and_off_for_the_old_one():
    new, old = nets(dropout_rate=0.5, drop_path_rate=0.5)
    state, rows = state_of(new, old), batch()
    calls = []

    def apply(variables, images, **arguments):
        calls.append(arguments)
        return old.apply(variables, images, **arguments)

    layers = find_layers(new, SHAPE)
    watched: Any = SimpleNamespace(apply=apply)
    objective = jax.jit(without_forgetting(new, watched, layers, SHAPE, freeze_bn=True))
    losses = [
        objective(state.params, state, rows, jax.random.key(seed))[1][1]["old_loss"]
        for seed in (0, 1)
    ]
    assert losses[0] != losses[1]
    head, teacher = calls[:2]
    assert head["train"] and set(head["rngs"]) == {"dropout", "drop_path"}
    assert not teacher  # Evaluation is the default.


def test_the_old_head_trains_with_the_last_stage_of_the_backbone():
    layers = Layers((("stem",), ("stage1",), ("head",)), "head")
    assert _with_old_head_in_backbone(layers).stages == (
        ("stem",),
        ("stage1", OBJECTIVE),
        ("head",),
    )


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Two data sources: `old` with the digits 0 to 4, `new` with 5 to 9."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, digits in (("old", range(5)), ("new", range(5, 10))):
        arrays: dict[str, Any] = {"class_names": [str(k) for k in digits]}
        for split in ("train", "test"):
            source = open_source("digits", split)
            images, labels = source.images, source.labels
            assert images is not None
            chosen = np.isin(labels, digits)
            arrays[f"x_{split}"] = images[chosen]
            arrays[f"y_{split}"] = labels[chosen] - digits[0]
        np.savez(folder / f"{name}.npz", **arrays)
    return {name: f"npz:{folder / name}.npz" for name in ("old", "new")}


def config(data, epochs, seed=0, **fields) -> Config:
    return Config(
        input=Input(data=data, image_size=8, batch_size=50, mean=(0.3,), std=(0.4,)),
        augment=Augment(crop_padding=1),
        optimization=Optimization(learning_rate=0.05, warmup_epochs=1),
        epochs=epochs,
        seed=seed,
        log_every=10,
        **fields,
    )


def transferred(run, data, epochs, transfer, seed=0, **fields) -> Config:
    network = Network("resnet18", {**FIELDS, **fields}, init=str(run))
    return config(data, epochs, seed, network=network, transfer=transfer)


@pytest.fixture(scope="module")
def old_run(programs, tasks, tmp_path_factory):
    run = tmp_path_factory.mktemp("old") / "run"
    fit(
        config(tasks["old"], 2, network=Network("resnet18", FIELDS)),
        run,
        console=Console(file=io.StringIO()),
    )
    return run


LWF = Transfer(transfer="lwf")


@pytest.mark.slow
@pytest.mark.long
def test_a_resumed_run_has_a_bit_equal_old_head(
    tasks, old_run, tmp_path, quiet, monkeypatch
):
    config = transferred(old_run, tasks["new"], 2, LWF)
    fit(config, tmp_path / "whole", console=quiet)
    with monkeypatch.context() as patch:
        received = contextlib.nullcontext([signal.SIGINT])
        patch.setattr("train.run.loop._signals", lambda: received)
        with pytest.raises(Interrupted):
            fit(config, tmp_path / "run", console=quiet)
    fit(config, tmp_path / "run", console=quiet)
    ends = []
    for run in ("whole", "run"):
        with Checkpoints(tmp_path / run) as checkpoints:
            ends.append(checkpoints.restore(build(config).shapes)[0])
    chex.assert_trees_all_equal(*ends)
    _, before = load_pretrained("resnet18", old_run)
    after = ends[0].params[OBJECTIVE]["old_head"]["head"]["kernel"]
    assert (after != before["params"]["head"]["kernel"]).any()

    # It can be evaluated on its task again.
    evaluation, source = evaluate_run(tmp_path / "run", tasks["old"], old_head=True)
    model, _ = load_pretrained("resnet18", old_run)
    variables = with_old_head(ends[0].variables, ends[0].params[OBJECTIVE]["old_head"])
    assert source.images is not None
    logits: Any = model.apply(variables, (source.images / 255.0 - 0.3) / 0.4)
    np.testing.assert_array_equal(evaluation.prediction, logits.argmax(-1))
    with pytest.raises(UserError, match="class 0 is 5 there and 0 in the run"):
        evaluate_run(tmp_path / "run", tasks["new"], old_head=True)
    with pytest.raises(UserError, match="--data SOURCE"):
        evaluate_run(tmp_path / "run", old_head=True)


def test_a_run_without_an_old_head_is_refused(tasks, tmp_path):
    network = Network("resnet18", FIELDS)
    run = untrained_run(tmp_path / "run", config(tasks["old"], 2, network=network))
    with pytest.raises(UserError, match="it was run without --transfer lwf"):
        evaluate_run(run, tasks["old"], old_head=True)


@pytest.mark.slow
@pytest.mark.long
def test_lwf_forgets_less_than_fine_tuning(programs, tasks, tmp_path, quiet):
    accuracies = []
    for seed in range(3):
        before = tmp_path / f"old{seed}"
        network = Network("resnet18", {**FIELDS, "width": 8})
        fit(config(tasks["old"], 20, seed, network=network), before, console=quiet)
        runs = {}
        for name in ("fine_tune", "lwf"):
            runs[name] = tmp_path / f"{name}{seed}"
            options = Transfer(transfer=name)
            fit(
                transferred(before, tasks["new"], 20, options, seed, width=8),
                runs[name],
                console=quiet,
            )
        preserved, _ = evaluate_run(runs["lwf"], tasks["old"], old_head=True)
        # Fine-tuning does not change the old head.
        model, old = load_pretrained("resnet18", before)
        _, tuned = load_pretrained("resnet18", runs["fine_tune"])
        head = {"head": old["params"]["head"]}
        source = open_source(tasks["old"], "test")
        assert source.images is not None
        images = (source.images / 255.0 - 0.3) / 0.4
        logits: Any = model.apply(with_old_head(tuned, head), images)
        accuracy = np.mean(logits.argmax(-1) == source.labels)
        accuracies.append((preserved.figures()["accuracy"], accuracy))
        new = evaluate_run(runs["lwf"])[0].figures()["accuracy"]
        print(accuracies[-1], new)
        assert new > 0.8
    assert all(lwf > fine_tuned + 0.1 for lwf, fine_tuned in accuracies)
