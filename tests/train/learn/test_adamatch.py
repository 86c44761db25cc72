import dataclasses
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from train.config import Augment, Config, Unlabelled
from train.errors import UserError
from train.learn.adamatch import AdaMatchState, adamatch, initial_state, warm_up
from train.learn.method_table import method_row
from train.learn.step import TrainState

RATIO, CLASSES = 2, 3
VIEWS = ("image", "strong")


class Net(nn.Module):
    """Batch normalization of 4 pixels, then a linear layer."""

    @nn.compact
    def __call__(self, images, train):
        x = images.reshape(len(images), 4)
        x = nn.BatchNorm(not train, momentum=0.5, name="bn")(x)
        return nn.Dense(CLASSES, use_bias=False, name="head")(x)


def softmax(row):
    powers = [math.exp(x - max(row)) for x in row]
    return [x / sum(powers) for x in powers]


def forward(kernel, groups):
    """Logits of each group of images, normalised together; mean and variance."""
    rows = np.concatenate(groups).reshape(-1, 4)
    mean, variance = rows.mean(0), rows.var(0)
    logits = (rows - mean) / np.sqrt(variance + 1e-5) @ kernel
    ends = np.cumsum([len(group) for group in groups])[:-1]
    return np.split(logits, ends), mean, variance


def reference(kernel, batch, averages, momentum, threshold):
    """The equations, image by image.

    Returns both losses, the threshold, the targets (0 if not used), the averages, and
    the statistics of the joint pass.
    """
    own = [batch["image"], batch["strong"]]
    others = [batch["unlabelled"]["image"], batch["unlabelled"]["strong"]]
    joint, mean, variance = forward(kernel, [*own, *others])
    alone, _, _ = forward(kernel, own)
    size = len(own[0])
    views = []
    for view in range(2):
        views.append(
            [
                [
                    share * a + (1 - share) * b
                    for share, a, b in zip(
                        batch["share"][i, view],
                        joint[view][i],
                        alone[view][i],
                        strict=True,
                    )
                ]
                for i in range(size)
            ]
        )
    labelled = 0.0
    for view in views:
        for row, label in zip(view, batch["label"], strict=True):
            labelled -= math.log(softmax(row)[label]) / size
    weak_labelled = [softmax(row) for row in views[0]]
    weak = [softmax(row) for row in joint[2]]

    def moved(old, rows):
        new = [sum(row[c] for row in rows) / len(rows) for c in range(CLASSES)]
        return [
            momentum * a + (1 - momentum) * b for a, b in zip(old, new, strict=True)
        ]

    p_labelled = moved(averages.labelled, weak_labelled)
    p_unlabelled = moved(averages.unlabelled, weak)
    lowest = threshold * sum(map(max, weak_labelled)) / size
    unlabelled, targets = 0.0, []
    for row, strong in zip(weak, joint[3], strict=True):
        target = [
            q * a / b for q, a, b in zip(row, p_labelled, p_unlabelled, strict=True)
        ]
        target = [q / sum(target) for q in target]
        targets.append(target if max(target) >= lowest else [0.0] * CLASSES)
        if any(targets[-1]):
            logs = map(math.log, softmax(strong))
            unlabelled -= sum(q * x for q, x in zip(target, logs, strict=True)) / len(
                weak
            )
    averages = AdaMatchState(np.array(p_labelled), np.array(p_unlabelled))
    return labelled, unlabelled, lowest, targets, averages, (mean, variance)


def batch_of(step, size=4):
    """Views whose strong one is a noisy weak one; of some classes more unlabelled."""
    rng = np.random.default_rng(step)

    def views(count):
        weak = rng.standard_normal((count, 2, 2, 1)) + (count > size)
        return {"image": weak, "strong": weak + rng.standard_normal(weak.shape)}

    return {
        **views(size),
        "label": rng.integers(0, CLASSES, size),
        "share": rng.uniform(size=(size, 2, CLASSES)),
        "unlabelled": views(RATIO * size),
    }


def state_of(step, averages):
    kernel = (2 + step) * np.random.default_rng(9).standard_normal((4, CLASSES))
    params = {
        "bn": {"scale": jnp.ones(4), "bias": jnp.zeros(4)},
        "head": {"kernel": jnp.asarray(kernel)},
    }
    stats = {"bn": {"mean": jnp.full(4, 0.5), "var": jnp.full(4, 2.0)}}
    step = jnp.array(step, jnp.int32)
    return TrainState(step, params, stats, (), method_state=averages), kernel


@pytest.mark.usefixtures("float64")
def test_four_steps_are_those_of_the_papers_equations():
    objective = adamatch(Net(), threshold=0.8, momentum=0.6, weight=2.0, steps=6)
    objective = jax.jit(objective)
    averages = expected = initial_state(CLASSES)
    masks = []
    for step in range(4):
        state, kernel = state_of(step, averages)
        batch = batch_of(step)
        loss, (updates, metrics) = objective(
            state.params, state, batch, jax.random.key(0)
        )
        labelled, unlabelled, lowest, targets, expected, (mean, variance) = reference(
            kernel, batch, expected, 0.6, 0.8
        )
        used = [any(target) for target in targets]
        mu = 1 / 2 - math.cos(min(math.pi, 2 * math.pi * step / 6)) / 2
        np.testing.assert_allclose(loss, labelled + 2 * mu * unlabelled, rtol=1e-12)
        np.testing.assert_allclose(metrics["loss"], labelled / 2, rtol=1e-12)
        np.testing.assert_allclose(metrics["unlabelled_loss"], unlabelled, rtol=1e-12)
        np.testing.assert_allclose(metrics["unlabelled_threshold"], lowest, rtol=1e-12)
        np.testing.assert_allclose(metrics["unlabelled_used"], np.mean(used), rtol=1e-6)
        averages = updates["method_state"]
        chex.assert_trees_all_close(averages, expected, rtol=1e-12)
        # The running statistics are those of the joint pass alone.
        found = updates["batch_stats"]["bn"]
        np.testing.assert_allclose(found["mean"], (0.5 + mean) / 2, rtol=1e-12)
        np.testing.assert_allclose(found["var"], (2 + variance) / 2, rtol=1e-12)
        masks += used
    assert 5 < sum(masks) < len(masks) - 5


@pytest.mark.usefixtures("float64")
def test_the_gradient_is_that_of_the_strong_view_with_constant_targets():
    objective = adamatch(Net(), threshold=0.8, momentum=0.6)
    averages, batch = initial_state(CLASSES), batch_of(1)
    state, kernel = state_of(1, averages)
    _, _, _, targets, *_ = reference(kernel, batch, averages, 0.6, 0.8)
    views = [rows[x] for rows in (batch, batch["unlabelled"]) for x in VIEWS]
    (_, _, _, strong), _, _ = forward(np.eye(4), views)

    def measured(kernel, name):
        params = {**state.params, "head": {"kernel": kernel}}
        return objective(params, state, batch, jax.random.key(0))[1][1][name]

    def expected(kernel):
        logs = jax.nn.log_softmax(jnp.asarray(strong) @ kernel)
        return -jnp.mean((jnp.asarray(targets) * logs).sum(1))

    gradient_of = jax.jit(jax.grad(measured), static_argnames="name")
    gradient = gradient_of(jnp.asarray(kernel), name="unlabelled_loss")
    assert gradient.any()
    np.testing.assert_allclose(gradient, jax.grad(expected)(kernel), rtol=1e-10)


def test_the_weight_rises_over_the_first_half_along_a_cosine():
    found = [float(warm_up(step, 8)) for step in (0, 1, 2, 4, 8)]
    expected = [0, (1 - math.sqrt(0.5)) / 2, 0.5, 1, 1]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_the_flag_asks_for_the_method():
    config = Config(unlabelled=Unlabelled("rest", consistency="adamatch"))
    assert method_row(config).flags == "--unlabelled --consistency adamatch"


def test_a_momentum_out_of_range_is_refused():
    message = re.escape("--adamatch-momentum must be in [0, 1), got 1.0.")
    with pytest.raises(UserError, match=message):
        Unlabelled(adamatch_momentum=1.0)


def test_flags_that_it_would_not_follow_are_refused():
    options = Unlabelled("rest", consistency="adamatch")
    with pytest.raises(UserError, match="leave out --ramp-up-epochs"):
        dataclasses.replace(options, ramp_up_epochs=1.0)
    with pytest.raises(UserError, match="leave out --mixup and --cutmix"):
        Config(unlabelled=options, augment=Augment(mixup=0.2))
