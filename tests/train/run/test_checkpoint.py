from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.weights.runs import restore_item
from train.config import Optimization
from train.learn.optimizer import make_optimizer
from train.learn.parallel import Placement
from train.learn.step import TrainState
from train.run.checkpoint import Checkpoints


def state(value, optimizer: Any = "sgd") -> Any:
    params = {"kernel": jnp.full((300, 300), value), "bias": jnp.full(3, value)}
    tx = make_optimizer(Optimization(optimizer=optimizer), lambda step: 0.1)
    return TrainState(
        step=jnp.int32(value),
        params=params,
        batch_stats={"mean": jnp.full(3, -value)},
        opt_state=tx.init(params),
    )


def shapes(optimizer="sgd"):
    placement = Placement()
    return placement.shapes(state(0.0, optimizer), placement.replicated)


@pytest.mark.parametrize("name", ["[red]", "a*?", "caf\udce9", "$x$ :cat:"])
def test_a_run_may_have_any_name(tmp_path, name):
    run, saved = tmp_path / name, state(0.5)
    for step in (3, 4, 5):
        with Checkpoints(run, keep=2) as checkpoints:
            checkpoints.save(step, saved, {"step": step})
    steps = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert steps == ["4", "5"]
    with Checkpoints(run) as checkpoints:
        restored, meta = checkpoints.restore(shapes())
    chex.assert_trees_all_equal(restored, saved)
    assert meta == {"step": 5}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_checkpoint_is_restored_bit_equal(tmp_path, optimizer):
    saved = state(1 / 3, optimizer)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest is None
        checkpoints.save(7, saved, {"step": 7, "share": 1 / 3})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 7
        restored, meta = checkpoints.restore(shapes(optimizer))
    chex.assert_trees_all_equal(restored, saved)
    chex.assert_trees_all_equal_dtypes(restored, saved)
    assert meta == {"step": 7, "share": 1 / 3}


def test_the_moving_average_is_an_item_of_its_own(tmp_path):
    saved = state(1 / 3).replace(ema=state(1 / 7).variables)
    placement = Placement()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved, {})
        checkpoints.wait()
        restored, _ = checkpoints.restore(placement.shapes(saved, placement.replicated))
    chex.assert_trees_all_equal(restored, saved)
    averages = restore_item(tmp_path, "ema", saved.variables)
    chex.assert_trees_all_equal(averages.tree, saved.ema)
    items = {path.name for path in (tmp_path / "checkpoints" / "1").iterdir()}
    assert {"model", "rest", "ema", "meta"} <= items


def test_the_state_may_be_donated_while_it_is_saved(tmp_path):
    train = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    now = state(0.0)
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 6):
            now = train(now)
            checkpoints.save(step, now, {"step": step})
            now = train(now)
        checkpoints.wait()
        restored, _ = checkpoints.restore(shapes())
    np.testing.assert_array_equal(restored.params["kernel"], np.full((300, 300), 9.0))


def test_what_is_saved_with_the_state_may_change_while_it_is_saved(tmp_path):
    meta = {"meter": {"sums": {"loss": 1.0}}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1.0), meta)
        meta["meter"]["sums"]["loss"] += 2.0
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(shapes())[1] == {"meter": {"sums": {"loss": 1.0}}}


def test_the_last_two_checkpoints_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {})
            checkpoints.wait()
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"2", "3"}
