import dataclasses
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.unlabelled import evaluated
from train.__main__ import main
from train.config import Config, Unlabelled
from train.errors import UserError
from train.learn.method_table import method_row
from train.learn.softmatch import SoftMatchState, initial_state, softmatch


def softmax(row):
    powers = [math.exp(x - max(row)) for x in row]
    return [x / sum(powers) for x in powers]


def reference(weak, strong, labels, state, momentum, n_sigma):
    """One step, image by image: the loss, the metrics, the new state, the weights."""
    mu, variance, averages = state
    size, num_classes = weak.shape
    predictions = [softmax(row) for row in weak]
    mu_b = sum(max(p) for p in predictions) / size
    variance_b = sum((max(p) - mu_b) ** 2 for p in predictions) / size
    mu = momentum * mu + (1 - momentum) * mu_b
    unbiased = size / (size - 1) * variance_b
    variance = momentum * variance + (1 - momentum) * unbiased
    averages = [
        momentum * old + (1 - momentum) * sum(p[k] for p in predictions) / size
        for k, old in enumerate(averages)
    ]
    weights, loss, right = [], 0.0, 0.0
    for p, logits, label in zip(predictions, strong, labels, strict=True):
        aligned = [
            x * (1 / num_classes) / average
            for x, average in zip(p, averages, strict=True)
        ]
        confidence = max(aligned) / sum(aligned)
        weight = 1.0
        if confidence < mu:
            weight = math.exp(-((confidence - mu) ** 2) / (2 * variance / n_sigma**2))
        answer = p.index(max(p))
        loss -= weight * math.log(softmax(logits)[answer]) / size
        right += weight * (answer == label) / size
        weights.append(weight)
    metrics = {
        "unlabelled_used": np.mean(weights),
        "unlabelled_used_right": right,
        "unlabelled_threshold": mu,
    }
    return loss, metrics, SoftMatchState(mu, variance, averages), np.array(weights)


def logits_of(step, size=24, num_classes=5):
    """Of two views, some confident, the first classes more probable; and labels."""
    rng = np.random.default_rng(step)
    weak, strong = (1 + step) * rng.standard_normal((2, size, num_classes))
    return weak - 0.5 * np.arange(num_classes), strong, rng.integers(0, 5, size)


# Averages as they are after many steps.
LATER = SoftMatchState(0.7, 0.05, [0.4, 0.25, 0.15, 0.1, 0.1])


def arrays(state):
    return jax.tree.map(
        jnp.asarray, state._replace(class_probabilities=np.array(state[2]))
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("momentum", "n_sigma", "start"),
    [
        (0.5, 2.0, SoftMatchState(1 / 5, 1.0, [1 / 5] * 5)),
        (0.9, 2.0, LATER),
        (0.999, 1.0, LATER),
    ],
)
def test_six_steps_are_those_of_the_papers_equations(momentum, n_sigma, start):
    loss = jax.jit(evaluated(softmatch(momentum, n_sigma, known=True)))
    state, expected = arrays(start), start
    below = 0
    for step in range(6):
        weak, strong, labels = logits_of(step)
        batch = {"label": jnp.asarray(labels)}
        found, new, metrics = loss([jnp.asarray(weak), strong], batch, state)
        total, measured, expected, weights = reference(
            weak, strong, labels, expected, momentum, n_sigma
        )
        np.testing.assert_allclose(found, total, rtol=1e-12)
        chex.assert_trees_all_close(metrics, measured, rtol=1e-12)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, new)
        for a, b in zip(new, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
        assert weights.max() == 1
        below += (weights < 0.9).sum()
        state = new
    assert below > 10


def test_the_averages_start_as_in_the_paper():
    mean, variance, class_probabilities = initial_state(5)
    np.testing.assert_allclose(mean, 1 / 5)
    np.testing.assert_array_equal(variance, 1)
    np.testing.assert_allclose(class_probabilities, [1 / 5] * 5)


def test_two_images_by_hand():
    # Predictions (0.9, 0.1) and (0.4, 0.6), and averages of this batch alone: mu is
    # 3/4, sigma^2 2 * 0.15^2 and E[p] (0.65, 0.35). The confidences, aligned, are
    # (18/13) / (18/13 + 2/7) = 63/76 and (12/7) / (8/13 + 12/7) = 39/53, of which the
    # second is 3/212 below mu.
    weak = jnp.log(jnp.array([[0.9, 0.1], [0.4, 0.6]]))
    strong = jnp.log(jnp.array([[0.5, 0.5], [0.75, 0.25]]))
    loss, state, metrics = evaluated(softmatch(momentum=0))(
        [weak, strong], {}, initial_state(2)
    )
    weight = math.exp(-((3 / 212) ** 2) / (2 * 0.045 / 4))
    np.testing.assert_allclose(
        loss, (math.log(2) + weight * math.log(4)) / 2, rtol=1e-6
    )
    np.testing.assert_allclose(metrics["unlabelled_used"], (1 + weight) / 2, rtol=1e-6)
    assert "unlabelled_used_right" not in metrics  # The true classes are not known.
    np.testing.assert_allclose(state.mean, 0.75, rtol=1e-6)
    np.testing.assert_allclose(state.variance, 0.045, rtol=1e-5)
    np.testing.assert_allclose(state.class_probabilities, [0.65, 0.35], rtol=1e-6)


def test_alignment_changes_the_weight_and_not_the_pseudo_label():
    # Aligned, the more probable class is the second one: 0.45 / 0.2 > 0.55 / 0.8.
    weak = jnp.log(jnp.array([[0.55, 0.45]] * 4))
    state = SoftMatchState(
        jnp.array(0.9), jnp.array(0.04), jnp.array([0.8, 0.2], jnp.float32)
    )
    batch = {"label": jnp.zeros(4, jnp.int32)}
    strong = jnp.log(jnp.array([[1 - 1e-6, 1e-6]] * 4))
    loss, _, metrics = evaluated(softmatch(1 - 1e-6, 1.0, known=True))(
        [weak, strong], batch, state
    )
    confidence = 0.45 / 0.2 / (0.45 / 0.2 + 0.55 / 0.8)
    weight = math.exp(-((confidence - 0.9) ** 2) / (2 * 0.04))
    np.testing.assert_allclose(metrics["unlabelled_used"], weight, rtol=1e-4)
    np.testing.assert_array_equal(
        metrics["unlabelled_used_right"], metrics["unlabelled_used"]
    )
    assert loss < 1e-5


def test_no_gradient_flows_through_weights_or_the_weak_view():
    weak, strong, labels = logits_of(3)
    weak, strong = (jnp.asarray(x, jnp.float32) for x in (weak, strong))

    def loss(weak, strong):
        return evaluated(softmatch(0.9))([weak, strong], {}, arrays(LATER))[0]

    of_weak, of_strong = jax.grad(loss, argnums=(0, 1))(weak, strong)
    assert not of_weak.any()
    _, _, _, weights = reference(
        np.float64(weak), np.float64(strong), labels, LATER, 0.9, 2.0
    )
    assert weights.min() < 0.9
    errors = jax.nn.softmax(strong) - jax.nn.one_hot(weak.argmax(-1), 5)
    np.testing.assert_allclose(of_strong, errors * weights[:, None] / 24, atol=1e-6)


def test_averages_that_underflow_leave_the_weights_finite():
    # Two images of one class, as confident as a float32 is: no variance, and a class of
    # probability 0.
    logits = jnp.array([[200.0, 0.0], [200.0, 0.0]])
    loss, state, metrics = evaluated(softmatch(momentum=0))(
        [logits, jnp.zeros((2, 2))], {}, initial_state(2)
    )
    assert state.variance == 0 and state.class_probabilities[1] == 0
    np.testing.assert_allclose(loss, metrics["unlabelled_used"] * math.log(2))
    assert 0 <= metrics["unlabelled_used"] <= 1


def test_a_batch_of_one_image_has_no_variance():
    logits = jnp.array([[1.0, 0.0]])
    loss, state, _ = evaluated(softmatch(0.9))([logits, logits], {}, initial_state(2))
    np.testing.assert_allclose(state.variance, 0.9, rtol=1e-6)
    assert jnp.isfinite(loss)


def test_the_flag_asks_for_the_method():
    config = Config(unlabelled=Unlabelled("rest", consistency="softmatch"))
    assert method_row(config).flags == "--unlabelled --consistency softmatch"


def test_the_flag_needs_unlabelled_images(capsys):
    assert main(["digits_resnet", "--consistency", "softmatch"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "--consistency softmatch needs --unlabelled SOURCE." in shown


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("softmatch_momentum", 1.0, "in [0, 1)"),
        ("softmatch_momentum", -0.1, "in [0, 1)"),
        ("softmatch_n_sigma", 0.0, "above 0"),
    ],
)
def test_a_value_out_of_range_is_refused(field, value, allowed):
    flag = "--" + field.replace("_", "-")
    message = re.escape(f"{flag} must be {allowed}, got {value}.")
    with pytest.raises(UserError, match=message):
        dataclasses.replace(Unlabelled(), **{field: value})
