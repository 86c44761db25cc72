import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.learn.test_adamatch import CLASSES, Net, forward, softmax, state_of
from train.config import Augment, Config, Unlabelled
from train.errors import UserError
from train.learn.inputs import train_inputs
from train.learn.method_table import method_row
from train.learn.mixmatch import _views, mix, mixmatch, sharpen

SIZE, RATIO = 4, 2


def batch_of(seed):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((5, SIZE, 2, 2, 1))
    share = rng.uniform(0.5, 1, (5, SIZE))
    return {
        "image": images[0],
        "label": rng.integers(0, CLASSES, SIZE),
        "share": share[:1].T,
        "unlabelled": {
            "image": np.concatenate(images[1:3]),
            "second": np.concatenate(images[3:]),
            "share": np.stack([share[1:3].ravel(), share[3:].ravel()], 1),
            "label": rng.integers(0, CLASSES, RATIO * SIZE),
        },
    }


def reference(kernel, batch, order, temperature):
    """The algorithm, image by image: both losses, the guesses, the statistics."""
    unlabelled = batch["unlabelled"]
    views = [unlabelled["image"], unlabelled["second"]]
    logits, _, _ = forward(kernel, views)
    guesses = []
    for first, second in zip(*logits, strict=True):
        pairs = zip(softmax(first), softmax(second), strict=True)
        powers = [((a + b) / 2) ** (1 / temperature) for a, b in pairs]
        guesses.append([power / sum(powers) for power in powers])
    one_hot = [[float(c == label) for c in range(CLASSES)] for label in batch["label"]]
    images = np.concatenate([batch["image"], *views])
    labels = np.array(one_hot + guesses + guesses)
    shares = np.concatenate([batch["share"].ravel(), *unlabelled["share"].T])
    rows, targets = [], []
    for i, share in enumerate(shares):
        j = order[i]
        rows.append(share * images[i] + (1 - share) * images[j])
        targets.append(share * labels[i] + (1 - share) * labels[j])
    (logits,), mean, variance = forward(kernel, [np.array(rows)])
    predicted = [softmax(row) for row in logits]
    labelled = unlabelled_loss = 0.0
    for i, (p, target) in enumerate(zip(predicted, targets, strict=True)):
        for q, wanted in zip(p, target, strict=True):
            if i < SIZE:
                labelled -= wanted * math.log(q) / SIZE
            else:
                count = 2 * RATIO * SIZE * CLASSES
                unlabelled_loss += (wanted - q) ** 2 / count
    return labelled, unlabelled_loss, guesses, (mean, variance)


@pytest.mark.usefixtures("float64")
def test_three_steps_are_those_of_the_papers_equations():
    objective = mixmatch(
        Net(), temperature=0.4, weight=75.0, ramp_up_steps=4, known=True
    )
    objective = jax.jit(objective)
    for step in (0, 1, 6):
        state, kernel = state_of(step, None)
        batch, key = batch_of(step), jax.random.key(step)
        loss, (updates, metrics) = objective(state.params, state, batch, key)
        # The objective's second key orders the partners.
        total = SIZE * (1 + 2 * RATIO)
        order = jax.random.permutation(jax.random.split(key, 3)[1], total)
        labelled, unlabelled, guesses, (mean, variance) = reference(
            kernel, batch, np.asarray(order), 0.4
        )
        ramp = min(step / 4, 1)
        np.testing.assert_allclose(loss, labelled + 75 * ramp * unlabelled, rtol=1e-12)
        np.testing.assert_allclose(metrics["loss"], labelled, rtol=1e-12)
        np.testing.assert_allclose(metrics["unlabelled_loss"], unlabelled, rtol=1e-12)
        right = np.argmax(guesses, 1) == batch["unlabelled"]["label"]
        np.testing.assert_allclose(metrics["unlabelled_accuracy"], right.mean(), 1e-6)
        # The running statistics are those of the mixed images alone.
        found = updates["batch_stats"]["bn"]
        np.testing.assert_allclose(found["mean"], (0.5 + mean) / 2, rtol=1e-12)
        np.testing.assert_allclose(found["var"], (2 + variance) / 2, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_guesses_have_no_gradient():
    # All views are their own partners: the gradient is that of the prediction alone.
    batch = batch_of(0)
    batch["share"] = np.ones_like(batch["share"])
    batch["unlabelled"]["share"] = np.ones_like(batch["unlabelled"]["share"])
    state, kernel = state_of(0, None)
    _, _, guesses, _ = reference(kernel, batch, np.arange(20), 0.5)
    views = [batch["unlabelled"][name] for name in ("image", "second")]
    (_, *rows), _, _ = forward(np.eye(4), [batch["image"], *views])

    def measured(kernel):
        params = {**state.params, "head": {"kernel": kernel}}
        _, (_, metrics) = mixmatch(Net())(params, state, batch, jax.random.key(0))
        return metrics["unlabelled_loss"]

    def expected(kernel):
        predicted = jax.nn.softmax(jnp.asarray(np.stack(rows)) @ kernel)
        return jnp.mean((jnp.asarray(guesses)[None] - predicted) ** 2)

    found = jax.jit(jax.grad(measured))(jnp.asarray(kernel))
    assert found.any()
    np.testing.assert_allclose(found, jax.grad(expected)(kernel), rtol=1e-9)


def test_sharpening_keeps_a_row_of_tiny_probabilities():
    rows = jnp.array([[0.5, 0.25, 0.25], [1e-30, 1e-30, 0.0]])
    found = sharpen(rows, 0.5)
    np.testing.assert_allclose(found, [[4 / 6, 1 / 6, 1 / 6], [0.5, 0.5, 0]], rtol=1e-6)


def test_every_row_is_the_partner_of_one():
    parts = [jnp.arange(3.0), 3 + jnp.arange(6.0)]
    mixed = mix(jax.random.key(1), parts, [jnp.zeros(3), jnp.zeros(6)])
    rows = np.concatenate(mixed)
    assert sorted(rows) == [*range(9)] and (rows != np.arange(9)).any()
    half = mix(jax.random.key(1), parts, [jnp.full(3, 0.5), jnp.full(6, 0.5)])
    np.testing.assert_allclose(np.concatenate(half), (rows + np.arange(9)) / 2)


def test_views_and_shares_are_drawn_per_image():
    weak = train_inputs(Augment(crop_padding=2), mean=[0.0], std=[1.0])
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    batch = {"image": jnp.tile(image, (64, 1, 1, 1)), "label": jnp.zeros(64, jnp.int32)}
    keys = jax.random.split(jax.random.key(0), 64)
    found = _views(weak, 0.75, ("image", "second"))(keys, batch, jax.random.key(1))
    assert (found["image"] != found["second"]).any((1, 2, 3)).mean() > 0.9
    share = np.asarray(found["share"])
    assert share.shape == (64, 2) and (share >= 0.5).all() and (share <= 1).all()
    assert len(np.unique(share)) == 128
    # The mean of max(x, 1 - x) under Beta(0.75, 0.75) is 0.7782.
    np.testing.assert_allclose(share.mean(), 0.7782, atol=0.05)


def test_the_flag_asks_for_the_method():
    config = Config(unlabelled=Unlabelled("rest", consistency="mixmatch"))
    assert method_row(config).flags == "--unlabelled --consistency mixmatch"


@pytest.mark.parametrize("field", ["mixmatch_temperature", "mixmatch_alpha"])
def test_a_value_out_of_range_is_refused(field):
    flag = "--" + field.replace("_", "-")
    with pytest.raises(UserError, match=re.escape(f"{flag} must be above 0, got 0.0.")):
        dataclasses.replace(Unlabelled(), **{field: 0.0})


def test_mixing_on_top_is_refused():
    options = Unlabelled("rest", consistency="mixmatch")
    with pytest.raises(UserError, match="mixmatch makes the views.*leave out --mixup"):
        Config(unlabelled=options, augment=Augment(cutmix=1.0))
