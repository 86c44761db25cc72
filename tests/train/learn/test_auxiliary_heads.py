"""Auxiliary heads learn what the head learns, with 0.3 of its loss."""

import contextlib
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax import losses
from cnn_flax.models import googlenet
from tests.support.small_models import (
    STRUCTURES,
    one_quick_per_family,
    small_fields,
)
from train.config import Config, Input, Network, Optimization, Parallelism, Transfer
from train.learn import forgetting
from train.learn.adamatch import AdaMatchState, adamatch
from train.learn.distillation import distilled, hint, kd
from train.learn.fixmatch import fixmatch
from train.learn.mixmatch import mixmatch
from train.learn.objectives import OBJECTIVE
from train.learn.semi_supervised import given_labels, self_labels, semi_supervised
from train.learn.supervised import supervised
from train.learn.transfer import Layers, Stage, plan_stages
from train.run.program import build, compile_train_step, train_step_shapes
from train.run.training_batches import training_batches

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((9, 4, 4, 1)).astype(np.float32)
LABELS = np.array([3, 1, 4])
# Three linear heads on 16 pixels: of the model, and auxiliary.
KERNELS = RNG.standard_normal((3, 16, 5)).astype(np.float32)
LOGITS = np.einsum("np,hpk->hnk", IMAGES.reshape(9, 16).astype(float), KERNELS)


class ThreeHeads:
    """A model with two auxiliary heads."""

    def apply(self, variables, images, **options):
        head, aux1, aux2 = images.reshape(len(images), 16) @ variables["params"]["k"]
        sown = {"aux1_logits": (aux1,), "aux2_logits": (aux2,)}
        sown |= {"stage1": (images,), "pre_logits": (images,)}
        return head, {"intermediates": sown}


class State(SimpleNamespace):
    """The part of a `TrainState` that an objective uses."""

    def replace(self, params):
        return State(**{**vars(self), "params": params})

    @property
    def variables(self):
        return {"params": self.params}


def value(objective, method_state=None, **batch):
    params: Any = {"k": KERNELS, OBJECTIVE: {"old_head": {}}}
    state = State(
        params=params, step=jnp.array(3), method_state=method_state, teacher=None
    )
    # One program compiles faster than its operations one by one.
    run = jax.jit(lambda key: objective(params, state, batch, key))
    loss, (_, metrics) = run(jax.random.key(0))
    return loss, metrics


def entropy(logits, targets):
    """Mean cross entropy in float64."""
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    if targets.ndim == 1:
        return -logs[np.arange(len(logs)), targets].mean()
    return -(targets * logs).sum(-1).mean()


def test_supervised():
    loss, metrics = value(
        supervised(ThreeHeads()), image=IMAGES, label=LABELS.repeat(3)
    )
    head, aux1, aux2 = (entropy(logits, LABELS.repeat(3)) for logits in LOGITS)
    np.testing.assert_allclose(loss, head + 0.3 * aux1 + 0.3 * aux2, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], head, rtol=1e-6)


@pytest.mark.parametrize("name", ["given", "own"])
def test_semi_supervised_with_one_view(name):
    unlabelled_loss = given_labels if name == "given" else self_labels(0.0)
    given = np.array([0, 1, 2, 3, 4, 0])
    loss, _ = value(
        semi_supervised(ThreeHeads(), unlabelled_loss, weight=2.0),
        image=IMAGES[:3],
        label=LABELS,
        unlabelled={"image": IMAGES[3:], "label": jnp.asarray(given)},
    )
    # The model's own labels are those of its head.
    learned = given if name == "given" else LOGITS[0, 3:].argmax(-1)
    expected = sum(
        weight * (entropy(logits[:3], LABELS) + 2 * entropy(logits[3:], learned))
        for weight, logits in zip((1, 0.3, 0.3), LOGITS, strict=True)
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_fixmatch_teaches_auxiliary_heads_the_heads_predictions():
    loss, _ = value(
        semi_supervised(ThreeHeads(), fixmatch(0.0)),
        image=IMAGES[:3],
        label=LABELS,
        unlabelled={"image": IMAGES[3:6], "strong": IMAGES[6:]},
    )
    predicted = LOGITS[0, 3:6].argmax(-1)
    expected = sum(
        weight * (entropy(logits[:3], LABELS) + entropy(logits[6:], predicted))
        for weight, logits in zip((1, 0.3, 0.3), LOGITS, strict=True)
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_adamatch_teaches_auxiliary_heads_the_heads_predictions():
    averages = AdaMatchState(jnp.full(5, 0.2), jnp.full(5, 0.2))
    options = {"threshold": 0.0, "momentum": 1.0, "weight": 2.0, "steps": 6}
    loss, _ = value(
        adamatch(ThreeHeads(), **options),
        averages,
        image=IMAGES[:1],
        strong=IMAGES[1:2],
        label=LABELS[:1],
        share=np.full((1, 2, 5), 0.5, np.float32),
        unlabelled={"image": IMAGES[2:5], "strong": IMAGES[5:8]},
    )
    # After 3 of 6 steps the warm-up has ended.
    expected = sum(
        weight
        * (
            entropy(logits[:1], LABELS[:1])
            + entropy(logits[1:2], LABELS[:1])
            + 2 * entropy(logits[5:8], softmax(LOGITS[0, 2:5]))
        )
        for weight, logits in zip((1, 0.3, 0.3), LOGITS, strict=True)
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_mixmatch_teaches_auxiliary_heads_the_heads_guesses():
    loss, _ = value(
        mixmatch(ThreeHeads(), temperature=1.0, weight=2.0),
        image=IMAGES[:3],
        label=LABELS,
        share=np.ones((3, 1), np.float32),
        unlabelled={
            "image": IMAGES[3:6],
            "second": IMAGES[6:],
            "share": np.ones((3, 2), np.float32),
        },
    )
    guess = (softmax(LOGITS[0, 3:6]) + softmax(LOGITS[0, 6:])) / 2
    expected = sum(
        weight
        * (
            entropy(logits[:3], LABELS)
            + 2 * np.mean((np.tile(guess, (2, 1)) - softmax(logits[3:])) ** 2)
        )
        for weight, logits in zip((1, 0.3, 0.3), LOGITS, strict=True)
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_distillation():
    teacher = RNG.standard_normal((9, 5))
    loss, _ = value(
        distilled(ThreeHeads(), lambda *_: (jnp.asarray(teacher), {}), kd(2.0, 0.7)),
        image=IMAGES,
        label=jnp.asarray(LABELS.repeat(3)),
    )
    p = np.exp(teacher / 2) / np.exp(teacher / 2).sum(-1, keepdims=True)
    divergence = [entropy(x / 2, p) - entropy(teacher / 2, p) for x in LOGITS]
    expected = sum(
        weight * (0.7 * 4 * soft + 0.3 * entropy(logits, LABELS.repeat(3)))
        for weight, soft, logits in zip((1, 0.3, 0.3), divergence, LOGITS, strict=True)
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_hints_are_the_backbones_alone():
    features = RNG.standard_normal((9, 4, 4, 2)).astype(np.float32)
    own = {"kernel": np.ones((1, 2), np.float32), "bias": np.zeros(2, np.float32)}

    def loss_of(student, teacher, labels, _):
        return hint("stage1", 1.5)(student, teacher, labels, own)

    def teach(*_):
        return jnp.zeros((9, 5)), {"stage1": jnp.asarray(features)}

    loss, _ = value(
        distilled(ThreeHeads(), teach, loss_of, features=("stage1",)),
        image=IMAGES,
        label=jnp.asarray(LABELS.repeat(3)),
    )
    guided = IMAGES @ own["kernel"]
    expected = 1.5 * losses.hint(guided, features)
    for weight, logits in zip((1, 0.3, 0.3), LOGITS, strict=True):
        expected += weight * entropy(logits, LABELS.repeat(3))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_learning_without_forgetting(monkeypatch):
    old_head, old_model = RNG.standard_normal((2, 9, 3)).astype(np.float32)
    monkeypatch.setattr(forgetting, "head_logits", lambda *_, **__: old_head)
    old: Any = SimpleNamespace(apply=lambda *_: old_model)
    objective = forgetting.without_forgetting(
        ThreeHeads(), old, Layers((), ""), (4, 4, 1), weight=0.5
    )
    labels = LABELS.repeat(3)
    loss, _ = value(objective, image=IMAGES, label=labels)
    expected = 0.5 * losses.distillation(old_head, old_model, temperature=2.0)
    for weight, logits in zip((1, 0.3, 0.3), LOGITS, strict=True):
        expected += weight * entropy(logits, labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_they_are_frozen_with_the_backbone_and_else_learn_like_the_head():
    layers = Layers((("conv1",), ("stage1",), ("head",)), "head", ("aux1", "aux2"))
    frozen = plan_stages(Transfer(transfer="features"), layers, 10)
    assert frozen[2:] == (Stage(("aux1", "aux2"), start=None), Stage(("head",)))
    options = Transfer(backbone_rate=0.1, unfreeze_epochs=1)
    assert plan_stages(options, layers, 10) == (
        Stage(("conv1",), 0.1, 20),
        Stage(("stage1",), 0.1, 10),
        Stage(("aux1", "aux2")),
        Stage(("head",)),
    )


def unlearned(config: Config) -> list[str]:
    """Parameters that a training step changes without looking at an image."""
    program = build(config)
    shapes = train_step_shapes(program)
    closed, after = jax.make_jaxpr(program.train_step, return_shape=True)(*shapes)
    inputs, jaxpr = jax.tree.leaves(shapes), closed.jaxpr
    (image,) = (i for i, x in enumerate(inputs) if x.dtype == np.uint8)
    dependent = {jaxpr.invars[image]}
    for equation in jaxpr.eqns:
        variables = (v for v in equation.invars if not hasattr(v, "val"))
        if any(variable in dependent for variable in variables):
            dependent.update(equation.outvars)
    leaves = jax.tree_util.tree_leaves_with_path(after[0].params)
    results = jaxpr.outvars[1 : 1 + len(leaves)]  # After the state's `step`.
    return [
        jax.tree_util.keystr(path)
        for (path, _), result in zip(leaves, results, strict=True)
        if result not in dependent
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", one_quick_per_family(STRUCTURES.values()))
def test_the_training_program_learns_every_parameter(name):
    fields = small_fields(name)
    del fields["num_classes"]  # Follows from the data.
    assert not unlearned(
        Config(
            input=Input(image_size=64, batch_size=2, mean=(0.5,), std=(0.5,)),
            network=Network(name, fields),
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "parts"), [("pmap", 1), ("jit", 2)])
def test_googlenets_heads_learn_on_mapped_devices_and_in_parts(
    parallel, parts, monkeypatch
):
    few = dict.fromkeys(("3b", "4a", "4d", "4e", "5b"), (8,) * 6)
    monkeypatch.setattr(googlenet, "_INCEPTIONS", few)
    config = Config(
        input=Input(image_size=32, batch_size=4, mean=(0.5,), std=(0.5,)),
        network=Network("googlenet"),
        optimization=Optimization(gradient_accumulation=parts, weight_decay=0.0),
        parallelism=Parallelism(parallel=parallel),
    )
    program = build(config)
    step, state = compile_train_step(program), program.init()
    before = jax.tree.map(np.array, state.params)
    with contextlib.closing(training_batches(program)) as batches:
        after, _ = step(state, next(batches), program.key)
    for name in ("aux1", "aux2"):
        for old, new in zip(
            jax.tree.leaves(before[name]["fc2"]),
            jax.tree.leaves(after.params[name]["fc2"]),
            strict=True,
        ):
            assert np.any(old != new)
