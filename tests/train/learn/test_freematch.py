import dataclasses
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.unlabelled import evaluated
from train.config import Config, Unlabelled
from train.errors import UserError
from train.learn.freematch import FreeMatchState, freematch, initial_state
from train.learn.method_table import method_row


def softmax(row):
    powers = [math.exp(x - max(row)) for x in row]
    return [x / sum(powers) for x in powers]


def sum_norm(probabilities, shares):
    ratios = [p / h if h else 0.0 for p, h in zip(probabilities, shares, strict=True)]
    return [ratio / sum(ratios) for ratio in ratios]


def reference(weak, strong, labels, state, momentum, fairness):
    """One step, image by image: the loss, the metrics, the new state, the mask."""
    size, num_classes = weak.shape
    q = [softmax(row) for row in weak]
    answers = [row.index(max(row)) for row in q]

    def average(old, new):
        return momentum * old + (1 - momentum) * new

    tau = average(state.threshold, sum(map(max, q)) / size)
    p = [
        average(state.class_probabilities[c], sum(row[c] for row in q) / size)
        for c in range(num_classes)
    ]
    h = [
        average(state.class_shares[c], answers.count(c) / size)
        for c in range(num_classes)
    ]
    used = [
        max(row) >= p[answer] / max(p) * tau
        for row, answer in zip(q, answers, strict=True)
    ]
    loss, right = 0.0, 0.0
    p_strong, h_strong = [0.0] * num_classes, [0.0] * num_classes
    for i in range(size):
        if not used[i]:
            continue
        prediction = softmax(strong[i])
        loss -= math.log(prediction[answers[i]]) / size
        right += (answers[i] == labels[i]) / size
        p_strong = [a + b for a, b in zip(p_strong, prediction, strict=True)]
        h_strong[prediction.index(max(prediction))] += 1
    pairs = zip(sum_norm(p, h), sum_norm(p_strong, h_strong), strict=True)
    loss += fairness * sum(a * math.log(b) for a, b in pairs if b)
    metrics = {
        "unlabelled_used": np.mean(used),
        "unlabelled_used_right": right,
        "unlabelled_threshold": sum(p) / max(p) * tau / num_classes,
        "unlabelled_threshold_lowest": min(p) / max(p) * tau,
        "unlabelled_threshold_highest": tau,
    }
    return loss, metrics, FreeMatchState(tau, np.array(p), np.array(h)), used


def logits_of(step, size=24, num_classes=5):
    """Of two views, some confident, the first classes more probable; and labels."""
    rng = np.random.default_rng(step)
    weak, strong = (1 + step) * rng.standard_normal((2, size, num_classes))
    return weak - 0.5 * np.arange(num_classes), strong, rng.integers(0, 5, size)


# Averages as they are after many steps.
LATER = FreeMatchState(
    0.8, np.array([0.4, 0.25, 0.15, 0.1, 0.1]), np.array([0.5, 0.3, 0.1, 0.1, 0.0])
)
START = FreeMatchState(1 / 5, np.full(5, 1 / 5), np.full(5, 1 / 5))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("momentum", "fairness", "start"),
    [(0.5, 0.05, START), (0.9, 0.01, LATER), (0.999, 0.0, LATER)],
)
def test_six_steps_are_those_of_the_papers_equations(momentum, fairness, start):
    loss = jax.jit(evaluated(freematch(momentum, fairness, known=True)))
    state, expected = jax.tree.map(jnp.asarray, start), start
    left_out = 0
    for step in range(6):
        weak, strong, labels = logits_of(step)
        batch = {"label": jnp.asarray(labels)}
        found, new, metrics = loss([jnp.asarray(weak), strong], batch, state)
        total, measured, expected, used = reference(
            weak, strong, labels, expected, momentum, fairness
        )
        np.testing.assert_allclose(found, total, rtol=1e-12)
        chex.assert_trees_all_close(metrics, measured, rtol=1e-6)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, new)
        chex.assert_trees_all_close(new, expected, rtol=1e-12)
        assert any(used)
        left_out += used.count(False)
        state = new
    assert left_out > 10


def test_the_averages_start_uniform():
    state = initial_state(4)
    np.testing.assert_allclose(state.threshold, 1 / 4)
    for average in state[1:]:
        np.testing.assert_allclose(average, [1 / 4] * 4)


def test_a_class_that_is_less_probable_has_a_lower_threshold():
    # Averages of this batch alone: tau is 0.75, p (0.525, 0.475): the thresholds are
    # 0.75 and 0.679, so of (0.6, 0.4), (0.9, 0.1), (0.3, 0.7) and (0.3, 0.7) the first
    # is left out.
    weak = jnp.log(jnp.array([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]]))
    _, state, metrics = evaluated(freematch(momentum=0, fairness=0))(
        [weak, weak], {}, initial_state(2)
    )
    np.testing.assert_allclose(state.threshold, 0.725, rtol=1e-6)
    np.testing.assert_allclose(state.class_probabilities, [0.525, 0.475], rtol=1e-6)
    np.testing.assert_allclose(state.class_shares, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(metrics["unlabelled_used"], 0.75)


def test_fairness_moves_strong_views_away_from_the_class_that_they_favour():
    # All images are used, and p / h is even.
    weak = jnp.log(jnp.array([[0.9, 0.1], [0.1, 0.9]]))
    strong = jnp.log(jnp.array([[0.6, 0.4], [0.45, 0.55], [0.7, 0.3], [0.8, 0.2]]))

    def loss(strong, fairness):
        views = [jnp.tile(weak, (2, 1)), strong]
        return evaluated(freematch(0.0, fairness))(views, {}, initial_state(2))[0]

    added = jax.grad(loss)(strong, 1.0) - jax.grad(loss)(strong, 0.0)
    # A step downwards makes class 0 less probable, which 3 of 4 views predict.
    assert (added[:, 0] > 0).all()
    np.testing.assert_allclose(added.sum(1), 0, atol=1e-6)


def test_no_image_that_is_confident_enough_leaves_a_loss_of_zero():
    # The averages hardly move, and ask for more than the batch has.
    state = FreeMatchState(jnp.array(0.99), jnp.full(2, 0.5), jnp.full(2, 0.5))
    logits = jnp.array([[0.1, 0.0], [0.0, 0.1]])

    def loss(strong):
        unlabelled = freematch(0.999, 1.0)
        return evaluated(unlabelled)([logits, strong], {}, state)[0]

    value, gradient = jax.value_and_grad(loss)(logits)
    assert value == 0 and not gradient.any()


def test_no_gradient_flows_through_the_weak_view():
    weak, strong, _ = (jnp.asarray(x, jnp.float32) for x in logits_of(3))
    state = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), LATER)

    def loss(weak, strong):
        return evaluated(freematch(0.9, 0.05))([weak, strong], {}, state)[0]

    of_weak, of_strong = jax.grad(loss, argnums=(0, 1))(weak, strong)
    assert not of_weak.any() and of_strong.any()


def test_the_flag_asks_for_the_method():
    config = Config(unlabelled=Unlabelled("rest", consistency="freematch"))
    assert method_row(config).flags == "--unlabelled --consistency freematch"


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("freematch_momentum", 1.0, "in [0, 1)"),
        ("freematch_fairness", -0.1, "at least 0"),
    ],
)
def test_a_value_out_of_range_is_refused(field, value, allowed):
    flag = "--" + field.replace("_", "-")
    message = re.escape(f"{flag} must be {allowed}, got {value}.")
    with pytest.raises(UserError, match=message):
        dataclasses.replace(Unlabelled(), **{field: value})
