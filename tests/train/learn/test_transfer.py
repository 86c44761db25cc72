from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_flax
from tests.support.small_models import random_variables
from train.config import Optimization, Transfer
from train.learn.objectives import OBJECTIVE
from train.learn.optimizer import make_optimizer
from train.learn.step import create_state, make_train_step
from train.learn.supervised import supervised
from train.learn.transfer import (
    Layers,
    Stage,
    find_layers,
    freeze_stages,
    head_logits,
    plan_stages,
    stage_of,
    train_on_features,
)

FIELDS = {"stage_sizes": (1,), "width": 4, "num_classes": 3, "small_inputs": True}
SHAPE = (8, 8, 1)
KEY = jax.random.key(0)
# The first module with parameters of each stage, by family; the last is the head's.
STAGES = {
    "alexnet": "layer1 layer2 layer3 layer4 layer5 layer6 layer7 head",
    "alexnet_lrn": "layer1 layer2 layer3 layer4 layer5 layer6 layer7 head",
    "vgg11_bn": "stage1_conv1 stage2_conv1 stage3_conv1 stage4_conv1 stage5_conv1 fc6 "
    "head",
    "googlenet": "conv1 inception3a inception4a inception5a head",
    "resnet18": "conv1 stage1_block1 stage2_block1 stage3_block1 stage4_block1 head",
    "densenet121": "conv1 stage1_layer1 transition1 transition2 transition3 bn head",
    "seresnet18": "conv1 stage1_block1 stage2_block1 stage3_block1 stage4_block1 head",
    "tf_efficientnet_lite0": "conv_stem stage1_block1 stage2_block1 stage3_block1 "
    "stage4_block1 stage5_block1 stage6_block1 stage7_block1 conv_head head",
    "resnet18_dcn": "conv1 stage1_block1 stage2_block1 stage3_block1 stage4_block1 "
    "head",
    "lab_resnet34": "conv1 stage1_block1 stage2_block1 stage3_block1 stage4_block1 "
    "head",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_stages_follow_the_forward_pass_and_have_every_parameter(name):
    model = cnn_flax.create_model(name)
    layers = find_layers(model, (64, 64, 3))
    images = jnp.zeros((1, 64, 64, 3))
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), images)
    learned = [[m for m in stage if m in shapes["params"]] for stage in layers.stages]
    assert " ".join(stage[0] for stage in learned) == STAGES[name]
    modules = [*sum(learned, []), *layers.auxiliary]
    assert sorted(modules) == sorted(shapes["params"])
    assert layers.entry in layers.stages[-1]


def model(**fields) -> Any:
    return cnn_flax.create_model("resnet18", **{**FIELDS, **fields})


def layers(net) -> Layers:
    return find_layers(net, SHAPE)


def test_a_small_resnets_stages():
    assert layers(model()) == Layers(
        (("conv1",), ("stage1_block1",), ("Dropout_0", "head")), "Dropout_0"
    )


def test_rates_fall_and_starts_rise_from_the_head_down():
    options = Transfer(backbone_rate=0.1, layer_decay=0.5, unfreeze_epochs=1.5)
    found = Layers((("a",), ("b", "c"), ("d",), ("head",)), "head")
    stages = plan_stages(options, found, 10)
    np.testing.assert_allclose([s.rate for s in stages], [0.0125, 0.025, 0.05, 1])
    assert [stage.start for stage in stages] == [45, 30, 15, 0]
    assert [stage.modules for stage in stages] == list(found.stages)


def test_with_features_only_the_head_is_trained():
    stages = plan_stages(Transfer(transfer="features"), layers(model()), 10)
    assert [stage.start for stage in stages] == [None, None, 0]


def test_a_module_in_no_stage_is_trained_with_the_head():
    stages = (Stage(("a",)), Stage(("b", "c")), Stage(("head",)))
    assert [stage_of(stages, name) for name in ("a", "c", "head", OBJECTIVE)] == [
        0,
        1,
        2,
        2,
    ]


OPTIMIZATIONS = {
    "sgd": Optimization(momentum=0.9, weight_decay=0.1),
    "adamw": Optimization(optimizer="adamw", weight_decay=0.1, clip_norm=1.0),
}


def batch(n=8):
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.normal(size=(n, *SHAPE)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 3, n)),
        "index": jnp.arange(n),
    }


def create(net, tx, **options) -> Any:
    return jax.jit(lambda: create_state(net, tx, SHAPE, KEY, **options))()


def start_and_step(net, optimization, stages, **options) -> Any:
    tx = make_optimizer(optimization, lambda step: 0.1 / (1 + step), stages)
    state = create(net, tx, ema=True)
    objective = freeze_stages(supervised(net), stages)
    step = make_train_step(
        objective, tx, lambda keys, batch, key: batch, ema_decay=0.5, **options
    )
    return state, jax.jit(step)


def parts(state, names) -> Any:
    """Copies of some modules' parameters, statistics and averages."""
    trees = (state.params, state.batch_stats, state.ema["params"])
    return jax.tree.map(np.array, [{k: t[k] for k in names if k in t} for t in trees])


BACKBONE = ("conv1", "stage1_block1")


@pytest.mark.parametrize(("optimizer", "accumulation"), [("sgd", 2), ("adamw", 1)])
def test_a_frozen_backbone_stays_bit_equal(optimizer, accumulation):
    net = model(dropout_rate=0.5)
    stages = plan_stages(Transfer(transfer="features"), layers(net), 10)
    state, step = start_and_step(
        net, OPTIMIZATIONS[optimizer], stages, accumulation=accumulation
    )
    before, head = parts(state, BACKBONE), parts(state, ["head"])
    for _ in range(5):
        state, _ = step(state, batch(), jax.random.key(1))
    chex.assert_trees_all_equal(parts(state, BACKBONE), before)
    chex.assert_trees_all_equal(state.ema["batch_stats"], before[1])
    after = parts(state, ["head"])[0]
    for leaf, new in zip(jax.tree.leaves(head[0]), jax.tree.leaves(after), strict=True):
        assert (leaf != new).all()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZATIONS)
def test_each_stage_is_bit_equal_until_its_start_and_trained_from_then_on(optimizer):
    net = model()
    stages = plan_stages(Transfer(unfreeze_epochs=1), layers(net), 2)
    state, step = start_and_step(net, OPTIMIZATIONS[optimizer], stages)
    for number in range(6):
        before = {stage.modules: parts(state, stage.modules) for stage in stages}
        state, _ = step(state, batch(), jax.random.key(1))
        for stage in stages:
            after = parts(state, stage.modules)
            same = jax.tree.map(np.array_equal, before[stage.modules], after)
            assert stage.start is not None
            if number < stage.start:
                assert all(jax.tree.leaves(same))
            else:
                assert not any(jax.tree.leaves(same))


@pytest.mark.parametrize("optimizer", OPTIMIZATIONS)
def test_an_unfrozen_stage_starts_with_fresh_moments_and_the_runs_rate(optimizer):
    # The first step of an unfrozen stage is that of a new optimizer.
    options = OPTIMIZATIONS[optimizer]
    stages = (Stage(("stem",), 0.5, 3), Stage(("head",)))
    tx: Any = make_optimizer(options, lambda step: 0.1 * (1 + step), stages)
    params = {name: {"kernel": jnp.ones((2, 2))} for name in ("stem", "head")}
    grads = jax.tree.map(lambda leaf: 0.1 * leaf, params)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(grads, state, params)
        assert not updates["stem"]["kernel"].any()
        assert updates["head"]["kernel"].all()
    updates, _ = tx.update(grads, state, params)
    alone: Any = make_optimizer(options, 0.5 * 0.1 * 4)
    expected, _ = alone.update(grads, alone.init(params), params)
    chex.assert_trees_all_close(updates["stem"], expected["stem"], rtol=1e-6)


def test_a_stages_update_is_scaled_by_its_rate():
    stages = (Stage(("a",), 0.25), Stage(("head",)))
    options = Optimization(momentum=0.0, weight_decay=0.1)
    params = {name: {"kernel": jnp.ones((2, 2))} for name in ("a", "head")}
    txs: Any = [make_optimizer(options, 0.1, s) for s in (stages, ())]
    found, usual = (tx.update(params, tx.init(params), params)[0] for tx in txs)
    np.testing.assert_allclose(found["a"]["kernel"], 0.25 * usual["a"]["kernel"])
    np.testing.assert_allclose(found["head"]["kernel"], usual["head"]["kernel"])


def test_frozen_stages_run_in_evaluation_mode_and_the_head_in_training_mode():
    net = model(dropout_rate=0.5, drop_path_rate=0.5)
    stages = plan_stages(Transfer(transfer="features"), layers(net), 10)
    state, _ = start_and_step(net, OPTIMIZATIONS["sgd"], stages)
    variables: Any = random_variables(net, 1, *SHAPE)
    state = state.replace(**variables)
    objective = freeze_stages(supervised(net), stages)
    rows = batch()
    key = jax.random.key(3)
    loss, _ = jax.jit(objective)(state.params, state, rows, key)
    features = jax.jit(net.clone(num_classes=0).apply)(variables, rows["image"])
    key_dropout, _ = jax.random.split(key)
    logits = head_logits(
        net,
        layers(net),
        variables,
        features,
        SHAPE,
        train=True,
        rngs={"dropout": key_dropout, "drop_path": key},
    )
    expected = cnn_flax.losses.cross_entropy(logits, rows["label"])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    without_noise = cnn_flax.losses.cross_entropy(
        jax.jit(net.apply)(variables, rows["image"]), rows["label"]
    )
    assert abs(loss - without_noise) > 1e-3


def test_batch_norm_of_a_waiting_stage_is_that_of_a_frozen_one():
    net = model()
    state = create(net, make_optimizer(Optimization(), 0.1))
    state = state.replace(**random_variables(net, 1, *SHAPE))
    found = layers(net)
    waits = plan_stages(Transfer(unfreeze_epochs=1), found, 10)
    never = plan_stages(Transfer(transfer="features"), found, 10)
    rows = batch()

    def loss(stages, state):
        return freeze_stages(supervised(net), stages)(state.params, state, rows, KEY)[0]

    np.testing.assert_allclose(loss(waits, state), loss(never, state), rtol=1e-6)
    unfrozen = state.replace(step=jnp.asarray(20))
    usual = supervised(net)(state.params, state, rows, KEY)[0]
    np.testing.assert_allclose(loss(waits, unfrozen), usual, rtol=1e-6)
    assert abs(usual - loss(never, state)) > 1e-3


SMALL = {
    "alexnet": ({"hidden_features": 8}, 64),
    "vgg11_bn": ({"hidden_features": 8}, 32),
    "resnet18": ({"stage_sizes": (1,), "width": 4}, 16),
    "densenet121": ({"stage_sizes": (1, 1), "growth_rate": 4}, 32),
    "googlenet": ({}, 32),
    "efficientnet_b0": ({"width_multiplier": 0.25, "depth_multiplier": 0.1}, 32),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_head_on_backbone_features_equals_the_model(name):
    fields, size = SMALL[name]
    net: Any = cnn_flax.create_model(name, num_classes=3, **fields)
    variables = random_variables(net, 2, size, size, 3)
    images = jax.random.normal(KEY, (2, size, size, 3))
    found = find_layers(net, (size, size, 3))

    @jax.jit
    def both(variables, images):
        features = net.clone(num_classes=0).apply(variables, images)
        of_features = head_logits(net, found, variables, features, (size, size, 3))
        return net.apply(variables, images), of_features

    whole, of_features = both(variables, images)
    np.testing.assert_allclose(of_features, whole, rtol=1e-5, atol=1e-5)


def test_training_on_features_equals_training_on_images_without_convolutions():
    net = model(dropout_rate=0.5)
    found = layers(net)
    stages = plan_stages(Transfer(transfer="features"), found, 10)
    tx = make_optimizer(OPTIMIZATIONS["adamw"], 0.1, stages)
    state = create(net, tx)
    state = state.replace(**random_variables(net, 1, *SHAPE))
    rows = batch()
    features = net.clone(num_classes=0).apply(state.variables, rows["image"])
    objective = freeze_stages(supervised(net), stages)
    steps = [
        jax.jit(make_train_step(one, tx, lambda keys, batch, key: batch))
        for one in (objective, train_on_features(objective, found, SHAPE))
    ]
    batches = [rows, {**rows, "image": jnp.zeros((8, 1, 1, 1)), "features": features}]
    states = [state, state]
    for _ in range(3):
        states = [
            step(now, rows, KEY)[0]
            for step, now, rows in zip(steps, states, batches, strict=True)
        ]
    chex.assert_trees_all_close(*states, rtol=1e-4, atol=1e-6)
    texts = [
        step.lower(state, rows, KEY).compile().as_text()
        for step, rows in zip(steps, batches, strict=True)
    ]
    assert [" convolution(" in str(text) for text in texts] == [True, False]
