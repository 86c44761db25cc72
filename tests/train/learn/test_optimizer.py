from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from train.config import Optimization
from train.learn.optimizer import make_optimizer, make_schedule, warmup_cosine


def test_the_rate_rises_linearly_and_falls_as_a_cosine():
    rates = [warmup_cosine(0.8, 3, 7)(step) for step in range(7)]
    half = 2**-0.5
    expected = [0.2, 0.4, 0.6, 0.8, 0.4 * (1 + half), 0.4, 0.4 * (1 - half)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert warmup_cosine(0.5, 0, 10)(0) == 0.5


def test_a_warm_up_as_long_as_the_run_never_falls():
    rates = [float(warmup_cosine(1.0, 4, 4)(step)) for step in range(4)]
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_weight_decay_changes_only_kernels(optimizer):
    options = Optimization(optimizer=optimizer, weight_decay=0.1)
    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2), "bias": jnp.ones(2)}
    tx: Any = make_optimizer(options, 0.1)
    zero = {name: jnp.zeros_like(leaf) for name, leaf in params.items()}
    updates, _ = tx.update(zero, tx.init(params), params)
    assert (updates["kernel"] < 0).all()
    assert not updates["scale"].any() and not updates["bias"].any()


def test_two_steps_of_sgd_by_hand():
    # torch's: g += decay * p; m = momentum * m + g; p -= rate * (g + momentum * m).
    options = Optimization(momentum=0.5, weight_decay=0.1)
    tx: Any = make_optimizer(options, 0.1)
    p = jnp.full((1, 1), 2.0)
    g = jnp.full((1, 1), 1.0)
    update, state = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(update, -0.1 * (1.2 + 0.5 * 1.2), rtol=1e-6)
    p += update
    second = 1 + 0.1 * (2 - 0.18)
    momentum = 0.5 * 1.2 + second
    update, _ = tx.update(g, state, p)
    np.testing.assert_allclose(update, -0.1 * (second + 0.5 * momentum), rtol=1e-6)


def test_a_step_of_adamw_by_hand():
    # The first step of Adam is the gradient's sign; weight decay is decoupled.
    options = Optimization(optimizer="adamw", weight_decay=0.1)
    tx: Any = make_optimizer(options, 0.01)
    p, g = jnp.full((1, 1), 2.0), jnp.full((1, 1), -3.0)
    update, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(update, -0.01 * (-1 + 0.1 * 2), rtol=1e-5)


def test_a_step_of_lamb_by_hand():
    # Adam's first step, a sign, plus weight decay; then scaled to the norm of p.
    options = Optimization(optimizer="lamb", weight_decay=0.1)
    tx: Any = make_optimizer(options, 0.01)
    p, g = jnp.array([[3.0, 4.0]]), jnp.array([[-2.0, 5.0]])
    update, _ = tx.update(g, tx.init(p), p)
    direction = np.array([[-1 + 0.3, 1 + 0.4]])
    expected = -0.01 * 5 * direction / np.linalg.norm(direction)
    np.testing.assert_allclose(update, expected, rtol=1e-5)


def test_gradients_are_clipped_before_anything_else():
    options = Optimization(momentum=0.0, weight_decay=0.1, clip_norm=1.0)
    tx: Any = make_optimizer(options, 1.0)
    p = {"a": jnp.full((1, 1), 2.0), "b": jnp.zeros(1)}
    g = {"a": jnp.full((1, 1), 3.0), "b": jnp.full(1, 4.0)}
    update, state = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(update["a"], [[-(3 / 5 + 0.2)]], rtol=1e-6)
    np.testing.assert_allclose(update["b"], [-4 / 5], rtol=1e-6)
    small = {"a": jnp.full((1, 1), 0.3), "b": jnp.full(1, 0.4)}
    update, _ = tx.update(small, state, p)
    np.testing.assert_allclose(update["b"], [-0.4], rtol=1e-6)


def test_the_step_schedule_decays_like_torchs_step_lr():
    options = Optimization(learning_rate=0.5, schedule="step")
    schedule = make_schedule(options, 10, 900)
    rates = [schedule(step) for step in (0, 299, 300, 599, 600, 899)]
    np.testing.assert_allclose(rates, [0.5, 0.5, 0.05, 0.05, 0.005, 0.005], rtol=1e-5)


def test_the_step_schedule_takes_an_interval_and_a_factor_and_follows_the_warm_up():
    options = Optimization(
        learning_rate=1.0,
        schedule="step",
        step_epochs=0.5,
        step_factor=0.5,
        warmup_epochs=0.3,
    )
    schedule = make_schedule(options, 10, 20)
    rates = [float(schedule(step)) for step in (0, 2, 3, 4, 5, 10)]
    np.testing.assert_allclose(rates, [0.25, 0.75, 1, 1, 0.5, 0.25], rtol=1e-6)


def test_the_default_schedule_is_the_cosine():
    options = Optimization(learning_rate=0.8, warmup_epochs=0.3)
    ours, cosine = make_schedule(options, 10, 20), warmup_cosine(0.8, 3, 20)
    assert [ours(step) for step in range(20)] == [cosine(step) for step in range(20)]
