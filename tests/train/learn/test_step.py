import json
from functools import cache, partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import cnn_flax
from cnn_flax.losses import cross_entropy
from tests.support import figures
from train.config import Augment, Optimization
from train.learn.inputs import eval_inputs, train_inputs
from train.learn.objectives import OBJECTIVE
from train.learn.optimizer import make_optimizer
from train.learn.step import (
    TrainState,
    create_state,
    make_eval_step,
    make_predict_step,
    make_train_step,
)
from train.learn.supervised import supervised

FIELDS = {"stage_sizes": (1,), "width": 4, "num_classes": 3, "small_inputs": True}
TX = optax.sgd(0.1)


def model(**fields):
    return cnn_flax.create_model("resnet18", **{**FIELDS, **fields})


def batch(n=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (n, 8, 8, 1), np.uint8)),
        "label": jnp.asarray(rng.integers(0, 3, n)),
        "index": jnp.arange(n) + n * seed,
    }


def step(net, augment=None, axis=None):
    prepare = train_inputs(augment or Augment(), mean=(0.5,), std=(0.25,))
    return make_train_step(supervised(net, axis=axis), TX, prepare, axis=axis)


@cache
def state(net) -> Any:
    return jax.jit(partial(create_state, net, TX, (8, 8, 1), jax.random.key(0)))()


class Named(nn.Module):
    """A linear model whose one module has a name of the caller's choice."""

    name_of_module: str

    @nn.compact
    def __call__(self, images, *, train=False):
        rows = images.reshape(len(images), -1)
        return nn.Dense(3, name=self.name_of_module)(rows)


@pytest.mark.slow
def test_a_module_named_objective_is_a_module():
    net: Any = Named("objective")
    now = create_state(
        net,
        TX,
        (8, 8, 1),
        jax.random.key(0),
        init_params=lambda key: {"bias": jnp.zeros(3)},
    )
    assert set(now.variables["params"]) == {"objective"}
    assert set(now.params) == {"objective", OBJECTIVE}
    after, _ = step(net)(now, batch(), jax.random.key(0))
    assert jnp.any(
        after.params["objective"]["kernel"] != now.params["objective"]["kernel"]
    )


def test_the_name_of_the_objectives_own_parameters_is_reserved():
    with pytest.raises(ValueError, match="'<objective>' is reserved"):
        state(Named(OBJECTIVE))


@pytest.mark.slow
def test_ten_steps_match_the_reference_in_float64(float64, optimized):
    path = figures.REFERENCE / "ops" / "trajectory_resnet18.json"
    expected = json.loads(path.read_text())
    shapes = figures.model_figures("tv_resnet18")["state_dict"]
    shapes = {**shapes, "fc.weight": [10, 512], "fc.bias": [10]}
    net = cnn_flax.create_model("resnet18", num_classes=10, dtype=jnp.float64)
    variables = jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float64),
        cnn_flax.weights.from_torch("resnet18", figures.seeded_state_dict(shapes)),
    )
    tx = make_optimizer(Optimization(momentum=0.9, weight_decay=1e-3), 3e-4)
    now = TrainState(
        step=jnp.zeros((), jnp.int32),
        opt_state=tx.init(variables["params"]),
        **variables,
    )
    images = {
        "image": jnp.asarray(figures.images(8, 64, 64, seed=104), jnp.float64),
        "label": jnp.asarray(expected["labels"]),
        "index": jnp.arange(8),
    }
    one = jax.jit(make_train_step(supervised(net), tx, lambda keys, batch, key: batch))
    losses = []
    for _ in range(10):
        now, metrics = one(now, images, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, expected["loss"], rtol=1e-6)


def test_a_step_changes_every_parameter_and_statistic():
    before = state(model())
    after, metrics = jax.jit(step(model()))(before, batch(), jax.random.key(1))
    assert after.step == 1
    for path, leaf in jax.tree.leaves_with_path(before.variables):
        new = dict(jax.tree.leaves_with_path(after.variables))[path]
        assert (leaf != new).any(), path
    assert set(metrics) == {"loss", "accuracy", "gradient_norm"}
    chex.assert_shape(list(metrics.values()), ())


def test_training_reduces_the_loss():
    now, one = state(model()), jax.jit(step(model()))
    for _ in range(200):
        now, metrics = one(now, batch(), jax.random.key(1))
    assert metrics["loss"] < 0.1
    assert metrics["accuracy"] == 1


@pytest.mark.slow
def test_the_metrics_are_of_the_parameters_before_the_step():
    net, now = model(), state(model())
    _, metrics = jax.jit(step(net))(now, batch(), jax.random.key(1))
    images = eval_inputs(batch()["image"], mean=(0.5,), std=(0.25,))
    logits, _ = net.apply(now.variables, images, train=True, mutable=["batch_stats"])
    labels = batch()["label"]
    loss = cnn_flax.losses.cross_entropy(logits, labels)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(
        metrics["accuracy"], np.mean(logits.argmax(-1) == labels), rtol=1e-6
    )


@pytest.mark.slow
def test_draws_differ_between_steps_and_repeat_in_the_same_step():
    net, one = model(), jax.jit(step(model(), Augment(flip=0.5, crop_padding=2)))
    now = state(net)
    later = now.replace(step=now.step + 1)
    key = jax.random.key(1)
    loss = [float(one(s, batch(), key)[1]["loss"]) for s in (now, now, later)]
    assert loss[0] == loss[1] != loss[2]


def test_an_images_draws_do_not_depend_on_the_order_of_rows():
    net, one = model(), jax.jit(step(model(), Augment(flip=0.5, crop_padding=2)))
    turned = {name: rows[::-1] for name, rows in batch().items()}
    a, b = (one(state(net), x, jax.random.key(1))[0] for x in (batch(), turned))
    chex.assert_trees_all_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_batch_split_over_a_mapped_axis_gives_the_same_step():
    # Like `jax.pmap`, with the axis on one device: the order of sums differs.
    fields = {"drop_path_rate": 0.5}
    augment = Augment(flip=0.5, crop_padding=2)
    whole = step(model(**fields), augment)
    part = step(model(**fields, bn_axis_name="data"), augment, axis="data")
    pmap_step = jax.vmap(part, (None, 0, None), None, axis_name="data")
    halves = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), batch())
    a = jax.jit(whole)(state(model()), batch(), jax.random.key(1))
    b = jax.jit(pmap_step)(state(model()), halves, jax.random.key(1))
    chex.assert_trees_all_close(a, b, rtol=1e-4, atol=1e-5)


def test_label_smoothing_and_soft_labels_reach_the_loss():
    net, now = model(), state(model())
    prepared = {"image": jnp.ones((4, 8, 8, 1)), "label": jnp.array([0, 1, 2, 0])}
    soft = {**prepared, "label": 0.7 * jax.nn.one_hot(prepared["label"], 3) + 0.1}
    key = jax.random.key(0)
    loss = partial(cross_entropy, label_smoothing=0.3)
    smoothed, _ = supervised(net, label_loss=loss)(now.params, now, prepared, key)
    same, (_, metrics) = supervised(net)(now.params, now, soft, key)
    np.testing.assert_allclose(smoothed, same, rtol=1e-6)
    hard, (_, expected) = supervised(net)(now.params, now, prepared, key)
    assert hard != smoothed
    assert metrics["accuracy"] == expected["accuracy"]


def test_dropout_follows_from_the_key():
    net = model(dropout_rate=0.5)
    now = state(net)
    prepared = {"image": jnp.ones((4, 8, 8, 1)), "label": jnp.zeros(4, jnp.int32)}
    loss = partial(jax.jit(supervised(net)), now.params, now, prepared)
    a, b, c = (float(loss(jax.random.key(seed))[0]) for seed in (0, 0, 1))
    assert a == b != c


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["data", None])
def test_devices_draw_their_own_drop_paths_with_global_and_local_statistics(axis):
    net = model(stage_sizes=(1, 1), drop_path_rate=0.5, bn_axis_name=axis)
    now = state(net)
    rows = {"image": batch(2)["image"] / 255, "label": batch(2)["label"]}
    parts = jax.tree.map(lambda x: jnp.stack([x] * 8), rows)
    objective = supervised(net, axis="data")
    losses, _ = jax.vmap(objective, (None, None, 0, None), 0, axis_name="data")(
        now.params, now, parts, jax.random.key(0)
    )
    assert len(np.unique(losses)) > 1


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        return nn.Dense(3)(x.reshape(len(x), -1))


@pytest.mark.slow
def test_a_batch_in_parts_gives_the_same_step():
    # Without BatchNorm and dropout, but with augmentation.
    prepare = train_inputs(Augment(flip=0.5, crop_padding=2), mean=(0.5,), std=(0.25,))
    whole, *in_parts = (
        jax.jit(make_train_step(supervised(Linear()), TX, prepare, accumulation=n))(
            state(Linear()), batch(), jax.random.key(1)
        )
        for n in (1, 2, 4)
    )
    for after in in_parts:
        chex.assert_trees_all_close(after, whole, rtol=1e-6, atol=1e-6)
        assert after[0].step == 1


@pytest.mark.slow
def test_each_part_updates_the_statistics_and_draws_its_own_dropout():
    net, now = model(dropout_rate=0.5), state(model())
    prepare = train_inputs(Augment(), mean=(0.5,), std=(0.25,))
    one = make_train_step(supervised(net), TX, prepare, accumulation=2)
    same = {name: jnp.repeat(rows, 2, 0) for name, rows in batch(4).items()}
    after, metrics = jax.jit(one)(now, same, jax.random.key(1))
    # Both parts are the same four images, so the mean moves by a tenth twice.
    images = eval_inputs(batch(4)["image"], mean=(0.5,), std=(0.25,))
    _, new = net.apply(
        now.variables,
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )
    once: Any = new["batch_stats"]["conv1"]["bn"]["mean"]
    twice = after.batch_stats["conv1"]["bn"]["mean"]
    np.testing.assert_allclose(twice, 1.9 * once, rtol=1e-4, atol=1e-6)
    half = make_train_step(supervised(net), TX, prepare)
    _, single = jax.jit(half)(now, batch(4), jax.random.key(1))
    assert metrics["loss"] != single["loss"]


def test_the_moving_average_by_hand():
    net = model()
    prepare = train_inputs(Augment(), mean=(0.5,), std=(0.25,))
    one = make_train_step(supervised(net), TX, prepare, ema_decay=0.15)
    start = jax.jit(
        partial(create_state, net, TX, (8, 8, 1), jax.random.key(0), ema=True)
    )()
    chex.assert_trees_all_equal(start.ema, start.variables)
    first, _ = jax.jit(one)(start, batch(), jax.random.key(1))
    second, _ = jax.jit(one)(first, batch(), jax.random.key(1))

    def mean(decay, old, new):
        return jax.tree.map(lambda x, y: decay * x + (1 - decay) * y, old, new)

    # (1 + 0) / (10 + 0), then 0.15, which is less than 2 / 11.
    expected = mean(0.1, start.variables, first.variables)
    chex.assert_trees_all_close(first.ema, expected, rtol=1e-5, atol=1e-6)
    expected = mean(0.15, expected, second.variables)
    chex.assert_trees_all_close(second.ema, expected, rtol=1e-5, atol=1e-6)


# One model of each file that has BatchNorm.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_frozen_statistics_are_used_in_training_and_stay(name):
    fields = {"num_classes": 3}
    if name == "resnet18":
        fields = {**FIELDS, "dropout_rate": 0.5}
    else:
        fields |= {"stage_sizes": (1, 1)}
    net: Any = cnn_flax.create_model(name, **fields)
    prepared = {"image": batch()["image"] / 255, "label": batch()["label"]}
    prepared["image"] = jnp.repeat(jnp.repeat(prepared["image"], 4, 1), 4, 2)
    now: Any = create_state(net, TX, (32, 32, 1), jax.random.key(0))
    key = jax.random.key(1)
    objective = supervised(net, freeze_bn=True)
    gradient = jax.grad(objective, has_aux=True)
    grads, (changes, metrics) = jax.jit(gradient)(now.params, now, prepared, key)
    chex.assert_trees_all_equal(changes["batch_stats"], now.batch_stats)
    assert all(leaf.any() for leaf in jax.tree.leaves(grads))
    _, (_, usual) = jax.jit(supervised(net))(now.params, now, prepared, key)
    assert metrics["loss"] != usual["loss"]
    if name == "densenet121":  # It has no dropout.
        logits = net.apply(now.variables, prepared["image"])
        loss = cnn_flax.losses.cross_entropy(logits, prepared["label"])
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)


class FirstPixels:
    """A model whose logits are the images' first pixels."""

    def apply(self, variables, images):
        return images[:, 0, :, 0]


def scores(rows, labels):
    images = jnp.asarray(rows, jnp.float32)[:, None, :, None]
    eval_step = make_eval_step(FirstPixels(), lambda x: x)  # pyright: ignore
    mask = jnp.ones(len(labels))
    return eval_step({}, {"image": images, "label": jnp.asarray(labels), "mask": mask})


def test_an_evaluation_by_hand():
    logits = np.log([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    out = scores(logits, [1, 2])
    np.testing.assert_allclose(out["loss"], -np.log([0.3, 0.6]), rtol=1e-5)
    np.testing.assert_array_equal(out["prediction"], [0, 2])
    np.testing.assert_allclose(out["confidence"], [0.5, 0.6], rtol=1e-5)
    np.testing.assert_array_equal(out["rank"], [1, 0])


def test_nan_logits_are_never_among_the_top_five():
    assert scores(np.full((1, 9), np.nan), [0])["rank"] == 9


def test_prediction_gives_log_probabilities_in_evaluation_mode():
    net, now = model(dropout_rate=0.5), state(model())
    predict = make_predict_step(net, partial(eval_inputs, mean=(0.5,), std=(0.25,)))
    images = batch()["image"]
    out = jax.jit(predict)(now.variables, images)
    np.testing.assert_allclose(np.exp(out).sum(-1), 1, rtol=1e-5)
    logits: Any = jax.jit(net.apply)(now.variables, (images / 255 - 0.5) / 0.25)
    np.testing.assert_allclose(out, jax.nn.log_softmax(logits), rtol=1e-4, atol=1e-5)


def test_a_model_without_batch_norm_trains():
    one = step(Linear())
    after, _ = one(state(Linear()), batch(), jax.random.key(0))
    assert after.batch_stats == {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_and_statistics_stay_float32(dtype):
    net = model(dtype=dtype)
    after, metrics = jax.jit(step(net))(state(net), batch(), jax.random.key(0))
    chex.assert_type(jax.tree.leaves(after.variables), jnp.float32)
    assert metrics["loss"].dtype == jnp.float32
