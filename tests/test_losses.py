import json
import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax import losses
from tests.support.figures import REFERENCE

FIGURES = json.loads((REFERENCE / "ops" / "losses.json").read_text())
LOGITS = jnp.array(FIGURES["student_logits"])
TEACHER = jnp.array(FIGURES["teacher_logits"])
LABELS = jnp.array(FIGURES["labels"])
TEMPERATURES = pytest.mark.parametrize("temperature", [1, 2, 4, 10])
RNG = np.random.default_rng(0)
SOFT = RNG.dirichlet(np.ones(10), 6)


@pytest.mark.parametrize(
    ("smoothing", "figure"),
    [(0.0, "cross_entropy"), (0.1, "cross_entropy_label_smoothing_0.1")],
)
def test_cross_entropy_matches_the_reference(smoothing, figure):
    loss = losses.cross_entropy(LOGITS, LABELS, smoothing)
    np.testing.assert_allclose(loss, FIGURES[figure], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_is_that_of_a_loop_of_its_equation(smoothing):
    logits, labels = 4 * RNG.normal(size=(5, 3)), RNG.random((5, 3)).round(1)
    total = 0.0
    for x, t in zip(logits.ravel(), labels.ravel(), strict=True):
        p, t = 1 / (1 + math.exp(-x)), (1 - smoothing) * t + smoothing / 2
        total -= t * math.log(p) + (1 - t) * math.log(1 - p)
    with jax.enable_x64():
        loss = losses.binary_cross_entropy(jnp.array(logits), labels, smoothing)
    np.testing.assert_allclose(loss, total / 15, rtol=1e-12)


def test_a_class_that_is_ruled_out_or_certain_adds_nothing_where_it_is_right():
    logits, labels = jnp.array([[-jnp.inf, jnp.inf, 0.0]]), jnp.array([[0, 1, 1]])
    value, slope = jax.value_and_grad(losses.binary_cross_entropy)(logits, labels)
    np.testing.assert_allclose(value, math.log(2) / 3, rtol=1e-6)
    np.testing.assert_allclose(slope, [[0, 0, -0.5 / 3]], rtol=1e-6)


def test_soft_labels_of_one_class_are_hard_labels():
    soft = jnp.eye(10)[LABELS]
    for smoothing in (0.0, 0.1):
        np.testing.assert_allclose(
            losses.cross_entropy(LOGITS, soft, smoothing),
            losses.cross_entropy(LOGITS, LABELS, smoothing),
            rtol=1e-6,
        )


def test_cross_entropy_by_hand():
    # -(1/4 log 1/2 + 3/4 log 1/2) = log 2.
    loss = losses.cross_entropy(jnp.zeros((1, 2)), jnp.array([[0.25, 0.75]]))
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


@TEMPERATURES
def test_distillation_matches_the_reference(temperature):
    figures = FIGURES[f"T={temperature}"]
    with jax.enable_x64():
        student, teacher = jnp.array(LOGITS, float), jnp.array(TEACHER, float)
        alone = losses.distillation(student, teacher, temperature=temperature)
        loss, gradient = jax.value_and_grad(losses.distillation)(
            student, teacher, LABELS, temperature, 0.7
        )
    expected = temperature**2 * figures["kl_batchmean"]
    np.testing.assert_allclose(alone, expected, rtol=1e-12)
    np.testing.assert_allclose(loss, figures["0.7*T^2*kl+0.3*ce"], rtol=1e-12)
    np.testing.assert_allclose(gradient, figures["gradient_student"], atol=1e-12)


@TEMPERATURES
@pytest.mark.parametrize("labels", [np.array(LABELS), SOFT], ids=["hard", "soft"])
def test_distillation_by_hand(labels, temperature):
    student, teacher = np.array(LOGITS, float), np.array(TEACHER, float)
    p, q = _softmax(teacher / temperature), _softmax(student / temperature)
    probabilities = np.eye(10)[labels] if labels.ndim == 1 else labels
    divergence = np.mean([sum(p[n] * np.log(p[n] / q[n])) for n in range(6)])
    entropy = np.mean(-np.sum(probabilities * np.log(_softmax(student)), axis=1))
    expected = 0.6 * temperature**2 * divergence + 0.4 * entropy
    # The gradient with respect to each logit: T (q - p) and q - p.
    gradient = 0.6 * temperature * (q - p) + 0.4 * (_softmax(student) - probabilities)
    with jax.enable_x64():
        loss = jax.value_and_grad(losses.distillation)
        value, slope = loss(student, teacher, jnp.array(labels), temperature, 0.6)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(slope, gradient / 6, atol=1e-14)
    single = losses.distillation(LOGITS, TEACHER, jnp.array(labels), temperature, 0.6)
    np.testing.assert_allclose(single, expected, rtol=1e-5)


def _standardized(rows):
    """Algorithm 1 of Sun et al. 2024, in a loop."""
    out = []
    for row in rows:
        mean = sum(row) / len(row)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row))
        out.append([(x - mean) / deviation for x in row])
    return np.array(out)


def test_standardized_distillation_is_that_of_a_loop_of_its_equations():
    student, teacher = np.array(LOGITS, float), np.array(TEACHER, float)
    p, q = (_softmax(_standardized(x) / 2) for x in (teacher, student))
    expected = 4 * np.mean([sum(p[n] * np.log(p[n] / q[n])) for n in range(6)])
    with jax.enable_x64():
        args = jnp.array(student), jnp.array(teacher)
        np.testing.assert_allclose(
            losses.standardized(args[0]), _standardized(student), rtol=1e-12
        )
        found = losses.distillation(*args, temperature=2, standardize=True)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        same = losses.decoupled_distillation(
            *args, LABELS, temperature=2, standardize=True
        )
        plain = losses.decoupled_distillation(
            *map(losses.standardized, args), LABELS, temperature=2
        )
    np.testing.assert_array_equal(same, plain)
    # Neither the range nor the offset of a net's logits counts.
    shifted = losses.distillation(5 * LOGITS - 3, TEACHER, standardize=True)
    unshifted = losses.distillation(LOGITS, TEACHER, standardize=True)
    np.testing.assert_allclose(shifted, unshifted, rtol=1e-5)


def test_equal_logits_and_classes_that_are_ruled_out_are_standardized():
    equal = jnp.array([[3.0, 3.0, 3.0], [1.0, -jnp.inf, 3.0]])
    found = losses.standardized(equal)
    np.testing.assert_allclose(found[0], 0, atol=1e-6)
    np.testing.assert_allclose(found[1], [-1, -jnp.inf, 1], rtol=1e-6)

    def loss(student):
        return losses.distillation(student, equal, standardize=True)

    for student in (equal, jnp.ones((2, 3)), jnp.array([[0.0, 1.0, 2.0]] * 2)):
        value, slope = jax.value_and_grad(loss)(student)
        assert jnp.isfinite(value) and jnp.isfinite(slope).all()


def test_without_labels_alpha_scales_nothing():
    alone = losses.distillation(LOGITS, TEACHER, alpha=0.3)
    np.testing.assert_array_equal(alone, losses.distillation(LOGITS, TEACHER))
    whole = losses.distillation(LOGITS, TEACHER, LABELS, alpha=1.0)
    np.testing.assert_array_equal(alone, whole)


@pytest.mark.parametrize("labels", [np.array(LABELS), SOFT], ids=["hard", "soft"])
def test_decoupled_distillation_by_hand(labels):
    student, teacher = np.array(LOGITS, float), np.array(TEACHER, float)

    def by_hand(student, temperature, alpha, beta):
        total = 0
        for n in range(6):
            target = labels[n] if labels.ndim == 1 else np.argmax(labels[n])
            others = [k for k in range(10) if k != target]
            p, q = (
                _softmax(teacher[n] / temperature),
                _softmax(student[n] / temperature),
            )
            p_other, q_other = 1 - p[target], 1 - q[target]
            tckd = p[target] * np.log(p[target] / q[target])
            tckd += p_other * np.log(p_other / q_other)
            p_hat, q_hat = p[others] / p_other, q[others] / q_other
            nckd = np.sum(p_hat * np.log(p_hat / q_hat))
            total += temperature**2 * (alpha * tckd + beta * nckd)
        return total / 6

    for options in ((4.0, 1.0, 8.0), (2.0, 0.5, 0.0), (1.0, 0.0, 2.0)):
        with jax.enable_x64():
            value, slope = jax.value_and_grad(losses.decoupled_distillation)(
                student, teacher, jnp.array(labels), *options
            )
        np.testing.assert_allclose(value, by_hand(student, *options), rtol=1e-12)
        for n, k in ((0, 8), (1, 6), (5, 3)):
            step = np.zeros((6, 10))
            step[n, k] = 1e-5
            rise = by_hand(student + step, *options) - by_hand(student - step, *options)
            np.testing.assert_allclose(slope[n, k], rise / 2e-5, atol=1e-8)


def test_the_two_parts_weighed_by_the_teacher_are_the_whole():
    """Equation 5: KL = TCKD + (1 - p_target) NCKD, here for one image."""
    for n in range(6):
        student, teacher, label = LOGITS[n : n + 1], TEACHER[n : n + 1], LABELS[n:][:1]
        rest = 1 - jax.nn.softmax(teacher / 3)[0, label[0]]
        np.testing.assert_allclose(
            losses.decoupled_distillation(student, teacher, label, 3, 1.0, float(rest)),
            losses.distillation(student, teacher, temperature=3),
            rtol=1e-5,
        )


def test_decoupled_distillation_is_finite_where_the_teacher_is_certain():
    teacher = 500 * jnp.eye(10)[LABELS]
    loss = partial(losses.decoupled_distillation, temperature=1.0)
    value, slope = jax.jit(jax.value_and_grad(loss))(LOGITS, teacher, LABELS)
    chex.assert_tree_all_finite((value, slope))


def test_a_class_that_is_ruled_out_adds_nothing():
    """Classes of logit minus infinity add 0 where the target's probability is 0."""
    possible, ruled_out = jnp.array([[0.0, 0.0]]), jnp.array([[-jnp.inf, 0.0, 0.0]])
    for labels in (jnp.array([1]), jnp.array([[0.0, 0.25, 0.75]])):
        value, slope = jax.value_and_grad(losses.cross_entropy)(ruled_out, labels)
        np.testing.assert_allclose(value, np.log(2), rtol=1e-6)  # 0.6931
        chosen = labels - 1 if labels.ndim == 1 else labels[:, 1:]
        expected = jax.grad(losses.cross_entropy)(possible, chosen)
        np.testing.assert_array_equal(slope, jnp.pad(expected, ((0, 0), (1, 0))))


@pytest.mark.parametrize("student", [[1.0, 2.0, 3.0], [1.0, 2.0, -np.inf]])
def test_distillation_ignores_classes_that_the_teacher_rules_out(student):
    student = np.array([student])
    teacher = np.array([[0.0, 0.0, -np.inf]])
    q = _softmax(student / 4)[0]
    divergence = sum(0.5 * np.log(0.5 / q[k]) for k in range(2))
    value, slopes = jax.value_and_grad(losses.distillation, (0, 1))(
        jnp.array(student), jnp.array(teacher)
    )
    np.testing.assert_allclose(value, 16 * divergence, rtol=1e-5)
    np.testing.assert_allclose(slopes[0][0], 4 * (q - [0.5, 0.5, 0]), atol=1e-6)
    chex.assert_tree_all_finite(slopes)


@pytest.mark.parametrize("certain", [[0, -np.inf, -np.inf], [0, 3, -np.inf]])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_decoupled_distillation_of_a_teacher_that_rules_classes_out(certain, target):
    student = np.array([[1.0, 2.0, 3.0]])
    p, q = _softmax(np.array(certain) / 4), _softmax(student[0] / 4)
    others = [k for k in range(3) if k != target]
    pairs = [(p[target], q[target]), (p[others].sum(), q[others].sum())]
    tckd = sum(a * np.log(a / b) for a, b in pairs if a)
    nckd = 0.0
    if p[others].sum():
        p_hat, q_hat = p[others] / p[others].sum(), q[others] / q[others].sum()
        nckd = sum(p_hat[k] * np.log(p_hat[k] / q_hat[k]) for k in (0, 1) if p_hat[k])
    value, slopes = jax.value_and_grad(losses.decoupled_distillation, (0, 1))(
        jnp.array(student), jnp.array([certain], float), jnp.array([target])
    )
    np.testing.assert_allclose(value, 16 * (tckd + 8 * nckd), rtol=1e-5)
    chex.assert_tree_all_finite((value, slopes))


def test_a_term_of_weight_0_is_left_out():
    student = jnp.array([[0.0, -jnp.inf, -jnp.inf]])
    uniform, labels = jnp.zeros((1, 3)), jnp.array([0])
    # The divergence is infinite, and in the second line the cross entropy.
    assert losses.distillation(student, uniform, labels, alpha=0) == 0
    assert losses.distillation(student, student, jnp.array([1]), alpha=1) == 0
    loss = losses.decoupled_distillation(uniform, uniform, labels, alpha=0, beta=0)
    assert loss == 0


def test_hint_by_hand():
    student, teacher = RNG.normal(size=(2, 3, 4, 4, 5))
    pairs = zip(teacher.flat, student.flat, strict=True)
    expected = np.sum([(t - s) ** 2 for t, s in pairs]) / 2 / 240
    with jax.enable_x64():
        value, slope = jax.value_and_grad(losses.hint)(student, teacher)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(slope, (student - teacher) / 240, atol=1e-15)


def test_the_same_logits_or_features_lose_nothing():
    assert losses.hint(LOGITS, LOGITS) == 0
    assert losses.distillation(LOGITS, LOGITS) == 0
    assert losses.decoupled_distillation(LOGITS, LOGITS, LABELS) == 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: losses.cross_entropy(x, LABELS),
        lambda x: losses.binary_cross_entropy(x, SOFT),
        lambda x: losses.distillation(x, x[::-1], LABELS),
        lambda x: losses.decoupled_distillation(x, x[::-1], LABELS),
        lambda x: losses.hint(x, x[::-1]),
    ],
    ids=[
        "cross_entropy",
        "binary_cross_entropy",
        "distillation",
        "decoupled_distillation",
        "hint",
    ],
)
def test_losses_of_bfloat16_are_computed_in_float32(loss):
    narrow = LOGITS.astype(jnp.bfloat16)
    assert loss(narrow).dtype == jnp.float32
    np.testing.assert_array_equal(loss(narrow), loss(narrow.astype(jnp.float32)))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"\[N\] or \[N, K\].*\(5,\) for .*\(6, 10\)"):
        losses.cross_entropy(LOGITS, LABELS[:5])
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        losses.cross_entropy(LOGITS, LABELS, 1.5)
    with pytest.raises(ValueError, match=r"both be \[N, K\]; got \(6, 10\) and \(6,\)"):
        losses.binary_cross_entropy(LOGITS, LABELS)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got -1"):
        losses.binary_cross_entropy(LOGITS, SOFT, -1)
    with pytest.raises(ValueError, match=r"temperature must be above 0, got 0"):
        losses.distillation(LOGITS, TEACHER, temperature=0)
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 2"):
        losses.distillation(LOGITS, TEACHER, LABELS, alpha=2)
    with pytest.raises(
        ValueError, match=r"logits must have the same shape.*\(6, 10\) and \(6, 9\)"
    ):
        losses.distillation(LOGITS, TEACHER[:, :9])
    with pytest.raises(ValueError, match=r"\[N\] or \[N, K\].*\(5,\)"):
        losses.distillation(LOGITS, TEACHER, LABELS[:5])
    with pytest.raises(ValueError, match=r"at least 0, got 1.0 and -1"):
        losses.decoupled_distillation(LOGITS, TEACHER, LABELS, beta=-1)
    with pytest.raises(ValueError, match=r"K must be at least 2.*\(6, 1\)"):
        losses.decoupled_distillation(LOGITS[:, :1], TEACHER[:, :1], LABELS)
    with pytest.raises(
        ValueError, match=r"features must have the same shape.*\(6, 10\)"
    ):
        losses.hint(LOGITS, TEACHER[:1])


def _softmax(logits):
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_the_loss_of_no_images_is_nan_as_torchs():
    # torch 2.9: F.cross_entropy, F.mse_loss and F.kl_div of tensors (0, 5) are NaN.
    logits, labels = jnp.zeros((0, 5)), jnp.zeros(0, int)
    for loss in (
        losses.cross_entropy(logits, labels),
        losses.cross_entropy(logits, logits, label_smoothing=0.1),
        losses.binary_cross_entropy(logits, logits),
        losses.distillation(logits, logits),
        losses.decoupled_distillation(logits, logits, labels),
        losses.hint(logits, logits),
    ):
        assert jnp.isnan(loss)
