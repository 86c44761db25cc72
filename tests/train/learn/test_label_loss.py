import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.losses import binary_cross_entropy
from train.config import Config, Optimization, UnevenClasses
from train.data import open_source
from train.errors import UserError
from train.learn.label_loss import balanced_weights, label_loss

COUNTS = (60, 30, 9, 1)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)) * 3
LABELS = np.array([0, 0, 1, 2, 3, 0])
SMOOTHING = 0.1


def images_of(counts):
    """A set with as many images of each class, whose pixels are never read."""
    labels = np.repeat(np.arange(len(counts)), counts)
    source = dataclasses.replace(open_source("digits"), find_labels=lambda: labels)
    return dataclasses.replace(source, class_names=tuple("abcd"))


def make(counts=COUNTS, **options):
    optimization = Optimization(label_smoothing=SMOOTHING)
    config = Config(optimization=optimization, uneven_classes=UnevenClasses(**options))
    return label_loss(config, images_of(counts))


def by_hand(logits, weights, offsets):
    """A loop of the equations, in Python's floats."""
    total = 0.0
    for row, label in zip(logits, LABELS, strict=True):
        shifted = [value + offset for value, offset in zip(row, offsets, strict=True)]
        log_sum = math.log(sum(math.exp(value) for value in shifted))
        for k, value in enumerate(shifted):
            target = SMOOTHING / 4 + (1 - SMOOTHING) * (k == label)
            total -= weights[label] * target * (value - log_sum)
    return total / len(LABELS)


@pytest.mark.parametrize(
    ("options", "weights", "offsets"),
    [
        ({}, [1] * 4, [0] * 4),
        (
            {"class_weights": "balanced"},
            [100 / (4 * count) for count in (60, 30, 9, 1)],
            [0] * 4,
        ),
        (
            {"logit_adjustment": 1.5},
            [1] * 4,
            [1.5 * math.log(share) for share in (0.6, 0.3, 0.09, 0.01)],
        ),
    ],
    ids=["plain", "class weights", "logit adjustment"],
)
def test_the_loss_is_that_of_a_loop_of_its_equations(options, weights, offsets):
    with jax.enable_x64():
        loss = make(**options)(jnp.array(LOGITS), jnp.array(LABELS))
        soft = jax.nn.one_hot(LABELS, 4, dtype=float)
        same = make(**options)(jnp.array(LOGITS), soft)
    np.testing.assert_allclose(loss, by_hand(LOGITS, weights, offsets), rtol=1e-12)
    np.testing.assert_allclose(same, loss, rtol=1e-12)


def test_a_mixed_label_has_the_mean_of_its_classes_weights():
    loss = make(class_weights="balanced")
    mixed = jnp.array([[0.75, 0, 0, 0.25]])
    logits = jnp.zeros((1, 4))
    expected = (0.75 * 100 / 240 + 0.25 * 100 / 4) * math.log(4)
    np.testing.assert_allclose(loss(logits, mixed), expected, rtol=1e-6)


def test_balanced_weights_have_mean_one_and_leave_out_empty_classes():
    weights = balanced_weights(np.array([60, 0, 30, 10]))
    np.testing.assert_allclose(weights, [100 / 180, 0, 100 / 90, 100 / 30])
    np.testing.assert_allclose(weights @ [60, 0, 30, 10], 100)


def test_an_empty_class_leaves_the_adjusted_loss_finite():
    loss = make((5, 0, 3, 2), logit_adjustment=1.0)
    value, slope = jax.value_and_grad(loss)(jnp.array(LOGITS), jnp.array(LABELS))
    assert jnp.isfinite(value) and jnp.isfinite(slope).all()


def test_the_counts_are_not_asked_for_without_need():
    def count():
        raise AssertionError("counted")

    label_loss(Config(), dataclasses.replace(images_of(COUNTS), find_labels=count))


def test_several_classes_per_image_have_binary_cross_entropy_and_no_weights():
    several = dataclasses.replace(images_of(COUNTS), multi_label=True)
    labels = RNG.integers(0, 2, LOGITS.shape)
    np.testing.assert_array_equal(
        label_loss(Config(), several)(jnp.array(LOGITS), labels),
        binary_cross_entropy(jnp.array(LOGITS), labels),
    )
    uneven = Config(uneven_classes=UnevenClasses(balanced_sampling=True))
    with pytest.raises(UserError, match="several classes per image: .* need one"):
        label_loss(uneven, several)


def test_one_correction_at_a_time():
    with pytest.raises(UserError, match="Give one of --class-weights"):
        UnevenClasses(class_weights="balanced", balanced_sampling=True)
