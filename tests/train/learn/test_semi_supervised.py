import dataclasses
import io
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from tests.support.policies import leave_out_operations
from tests.support.runs import assert_resumes_to_the_same_end
from tests.support.unlabelled import evaluated
from train.config import Augment, Network, Optimization, Selection, Unlabelled
from train.data.select import training_images, unlabelled_images
from train.errors import UserError
from train.learn.fixmatch import fixmatch
from train.learn.flexmatch import flexmatch
from train.learn.inputs import two_views
from train.learn.semi_supervised import (
    given_labels,
    interleave,
    ramp_up,
    self_labels,
    semi_supervised,
    separate,
)
from train.run.loop import fit
from train.run.program import build, compile_train_step
from train.run.training_batches import training_batches


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def entropy(logits, targets):
    """Cross entropy of each row in float64, with classes or with probabilities."""
    logs = np.log(softmax(logits.astype(np.float64)))
    if targets.ndim == 1:
        return -logs[np.arange(len(logs)), targets]
    return -(targets * logs).sum(-1)


@pytest.fixture
def logits():
    """Logits of two views of 40 images in 5 classes; about half are confident."""
    rng = np.random.default_rng(0)
    weak, strong = 2.5 * rng.standard_normal((2, 40, 5)).astype(np.float32)
    return weak, strong


def test_interleaving_makes_the_rows_of_each_image_consecutive():
    parts = [jnp.array([0, 1]), jnp.array([10, 11, 12, 13]), jnp.array([20, 21])]
    rows = interleave(parts)
    np.testing.assert_array_equal(rows, [0, 10, 11, 20, 1, 12, 13, 21])
    chex.assert_trees_all_equal(separate(rows, [1, 2, 1]), parts)


def test_separating_inverts_interleaving():
    parts = [jnp.arange(24.0).reshape(2, 2, 2, 3), jnp.ones((6, 2, 2, 3))]
    rows = interleave(parts)
    chex.assert_shape(rows, (8, 2, 2, 3))
    chex.assert_trees_all_equal(separate(rows, [1, 3]), parts)


def test_the_weight_ramps_up_as_in_the_paper():
    found = [float(ramp_up(step, 10)) for step in (0, 5, 10, 99)]
    np.testing.assert_allclose(found, [np.exp(-5), np.exp(-1.25), 1, 1], rtol=1e-6)
    assert ramp_up(0, 0) == 1


def test_fixmatch_by_hand(logits):
    weak, strong = logits
    classes, confident = weak.argmax(-1), softmax(weak).max(-1) >= 0.8
    assert 5 < confident.sum() < 35
    batch = {"label": jnp.arange(40) % 5}
    views = [jnp.asarray(weak), jnp.asarray(strong)]
    loss, state, metrics = evaluated(fixmatch(0.8, known=True))(views, batch)
    expected = (entropy(strong, classes) * confident).mean()
    np.testing.assert_allclose(loss, expected, 1e-6)
    right = confident & (classes == np.arange(40) % 5)
    assert state is None
    np.testing.assert_allclose(metrics["unlabelled_used"], confident.mean())
    np.testing.assert_allclose(metrics["unlabelled_used_right"], right.mean())


def test_no_gradient_flows_through_the_predicted_labels(logits):
    def loss(weak, strong):
        return evaluated(fixmatch(0.8))([weak, strong], {})[0]

    weak, strong = jax.grad(loss, argnums=(0, 1))(*logits)
    assert not weak.any()
    classes, confident = logits[0].argmax(-1), softmax(logits[0]).max(-1) >= 0.8
    expected = (softmax(logits[1]) - np.eye(5)[classes]) * confident[:, None] / 40
    np.testing.assert_allclose(strong, expected, atol=1e-7)


def test_the_models_own_predictions_as_labels_by_hand(logits):
    weak, _ = logits
    confident = softmax(weak).max(-1) >= 0.7
    expected = (entropy(weak, weak.argmax(-1)) * confident).mean()
    loss, _, metrics = evaluated(self_labels(0.7))([weak], {})
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert set(metrics) == {"unlabelled_used"}  # No metric needs true labels.


def test_given_labels_are_hard_or_soft(logits):
    weak, strong = logits
    soft = softmax(strong)
    batch = {"label": jnp.asarray(soft)}
    loss, _, metrics = evaluated(given_labels)([weak], batch)
    np.testing.assert_allclose(loss, entropy(weak, soft).mean(), rtol=1e-6)
    agreed = (weak.argmax(-1) == strong.argmax(-1)).mean()
    np.testing.assert_allclose(metrics["unlabelled_accuracy"], agreed)
    hard = strong.argmax(-1)
    batch = {"label": jnp.asarray(hard, jnp.int32)}
    loss, _, _ = evaluated(given_labels)([weak], batch)
    np.testing.assert_allclose(loss, entropy(weak, hard).mean(), rtol=1e-6)


def test_flexmatch_by_hand(logits):
    weak, strong = logits
    latest = np.repeat([-1, 0, 1, 2, 3], [20, 35, 20, 3, 2])  # 80 images, 5 classes.
    index = np.arange(40)
    batch = {"image_index": jnp.asarray(index)}
    loss, new, metrics = evaluated(flexmatch(0.8))(
        list(logits), batch, jnp.asarray(latest)
    )

    probabilities = softmax(weak)
    total, used, expected = 0.0, 0, latest.copy()
    highest = 0.8 * 1 / (2 - 1)  # Of class 0, which has most of the predictions.
    for row in range(40):
        k = probabilities[row].argmax()
        status = (latest == k).sum() / 35  # More than the 20 without a prediction.
        if probabilities[row, k] >= 0.8 * status / (2 - status):
            total += entropy(strong[row : row + 1], np.array([k]))[0]
            used += 1
        if probabilities[row, k] >= 0.8:
            expected[index[row]] = k
    np.testing.assert_allclose(loss, total / 40, rtol=1e-6)
    np.testing.assert_allclose(metrics["unlabelled_used"], used / 40)
    assert used > (probabilities.max(-1) >= 0.8).sum()
    np.testing.assert_allclose(metrics["unlabelled_threshold_highest"], highest)
    assert metrics["unlabelled_threshold_lowest"] == 0  # No image has class 4.
    np.testing.assert_array_equal(new, expected)
    assert (expected != latest).any()


def test_flexmatch_warms_up_while_most_images_have_no_confident_prediction():
    # 1 of 10 images: each class's status is at most 1 / 9.
    latest = jnp.array([-1] * 9 + [0])
    logits = jnp.log(jnp.array([[0.51, 0.49], [0.49, 0.51]]))
    batch = {"image_index": jnp.array([0, 1])}
    _, _, metrics = flexmatch(0.95)([logits, logits], batch, latest)
    assert metrics["unlabelled_used"] == 1


def test_the_objective_adds_the_weighted_loss_of_the_unlabelled():
    class Linear:
        """A model whose logits are a matrix times the image's 16 pixels."""

        def apply(self, variables, images, **kwargs):
            kernel = variables["params"]["kernel"]
            return images.reshape(len(images), 16) @ kernel, {}

    rng = np.random.default_rng(1)
    params = {"kernel": rng.standard_normal((16, 5)).astype(np.float32)}
    images = rng.standard_normal((14, 4, 4, 1)).astype(np.float32)
    batch = {
        "image": images[:2],
        "label": jnp.array([3, 4]),
        "unlabelled": {"image": images[2:8], "strong": images[8:]},
    }
    state = FakeState(params, jnp.array(3))
    objective = semi_supervised(Linear(), fixmatch(0.3), weight=2.0, ramp_up_steps=6)
    loss, (changes, metrics) = objective(params, state, batch, jax.random.key(0))

    logits = images.reshape(14, 16).astype(np.float64) @ params["kernel"]
    labelled = entropy(logits[:2], np.array([3, 4])).mean()
    weak, strong = logits[2:8], logits[8:]
    confident = softmax(weak).max(-1) >= 0.3
    unlabelled = (entropy(strong, weak.argmax(-1)) * confident).mean()
    np.testing.assert_allclose(metrics["loss"], labelled, rtol=1e-6)
    np.testing.assert_allclose(metrics["unlabelled_loss"], unlabelled, rtol=1e-6)
    expected = labelled + 2 * np.exp(-5 * 0.5**2) * unlabelled
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert changes == {"batch_stats": {}, "method_state": None}


class FakeState(SimpleNamespace):
    """The part of a `TrainState` that an objective uses."""

    def __init__(self, params, step):
        super().__init__(params=params, step=step, method_state=None)

    def replace(self, params):
        return FakeState(params, self.step)

    @property
    def variables(self):
        return {"params": self.params}


@pytest.fixture
def few_operations(monkeypatch):
    """A policy that compiles fast, where it matters only that the view is changed."""
    leave_out_operations(monkeypatch)


@pytest.fixture
def few(tiny):
    """The config `tiny` with 4 labels per class, and the other images unlabelled."""
    return dataclasses.replace(
        tiny,
        input=dataclasses.replace(tiny.input, batch_size=16),
        selection=Selection(labels_per_class=4),
        # One operation and no box compile faster.
        unlabelled=Unlabelled(
            "rest",
            ratio=2,
            consistency="fixmatch",
            threshold=0.3,
            strong_operations=1,
            strong_erase=0.0,
        ),
        epoch_steps=4,
        epochs=2,
        log_every=4,
    )


def test_the_rest_is_what_the_selection_leaves_out(few):
    everything = dataclasses.replace(
        few, selection=Selection(), unlabelled=Unlabelled()
    )
    images = training_images(everything)
    every = {images.name(i) for i in range(1438)}
    labelled, others = training_images(few), unlabelled_images(few)
    names = [labelled.name(i) for i in range(40)]
    rest = [others.name(i) for i in range(len(others))]
    assert len(labelled) == 40 and len(others) == 1398
    assert set(names) | set(rest) == every and not set(names) & set(rest)
    np.testing.assert_array_equal(np.bincount(labelled.labels), [4] * 10)
    np.testing.assert_array_equal(others.columns["image_index"], np.arange(1398))


def test_an_empty_rest_is_an_error_that_names_the_flags(few):
    config = dataclasses.replace(few, selection=Selection())
    with pytest.raises(UserError, match="No images.*--labels-per-class"):
        unlabelled_images(config)


@pytest.mark.slow
@pytest.mark.usefixtures("few_operations")
@pytest.mark.parametrize("consistency", ["flexmatch", "freematch", "pseudo_label"])
def test_true_labels_of_the_unlabelled_are_never_learned_from(few, consistency):
    options = dataclasses.replace(few.unlabelled, consistency=consistency)
    program = build(dataclasses.replace(few, unlabelled=options))
    step = compile_train_step(program)
    right, wrong = program.init(), program.init()
    stream = training_batches(program)
    for _ in range(2):
        batch = next(stream)
        right, _ = step(right, batch, program.key)
        labels = (batch["unlabelled"]["label"] + 3) % 10
        mislabelled = {**batch["unlabelled"], "label": labels}
        wrong, _ = step(wrong, {**batch, "unlabelled": mislabelled}, program.key)
    stream.close()
    chex.assert_trees_all_equal(right, wrong)


@pytest.mark.slow
def test_the_weak_view_is_only_cropped_and_the_strong_view_is_changed_as_well():
    options = Augment(crop_padding=1, policy="trivial_augment", erase=0.5, mixup=0.2)
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1), np.uint8)
    batch = {"image": jnp.asarray(images), "label": jnp.zeros(32, jnp.int32)}
    prepare = two_views(options, Unlabelled(strong_erase=1.0), mean=[0.3], std=[0.4])
    keys = jax.random.split(jax.random.key(0), 32)
    found = prepare(keys, batch, jax.random.key(1))
    for row in range(32):
        padded = np.pad(images[row, :, :, 0], 1) / 255
        windows = [padded[y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
        weak = 0.4 * found["image"][row, :, :, 0] + 0.3
        assert min(np.abs(weak - window).max() for window in windows) < 1e-5
    change = np.abs(found["strong"] - found["image"]).max((1, 2, 3))
    assert (change > 0.1).all()
    # A box of the mean is 0 after normalisation.
    assert (np.abs(found["strong"]) < 1e-6).any((1, 2, 3)).all()
    np.testing.assert_array_equal(found["label"], batch["label"])


@pytest.mark.slow
@pytest.mark.usefixtures("programs", "few_operations")
@pytest.mark.parametrize(
    "consistency", ["flexmatch", "softmatch", "freematch", "adamatch"]
)
def test_a_stopped_run_resumes_the_methods_state(
    few, tmp_path, monkeypatch, consistency
):
    options = dataclasses.replace(few.unlabelled, consistency=consistency)
    config = dataclasses.replace(few, unlabelled=options)
    console = Console(file=io.StringIO())
    assert_resumes_to_the_same_end(config, tmp_path, 5, monkeypatch, console)


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_unlabelled_images_beat_the_labels_alone(few, tmp_path, quiet):
    # 4 labels per digit; `benchmarks/pages/results/consistency.py` has five seeds. The
    # momenta are below the default of 0.999, which hardly moves in this few steps.
    network = Network(
        "resnet18", {"stage_sizes": (1, 1), "width": 8, "small_inputs": True}
    )

    def accuracy(consistency):
        unlabelled = Unlabelled()
        if consistency != "none":
            unlabelled = Unlabelled(
                "rest",
                ratio=3,
                consistency=consistency,
                softmatch_momentum=0.99,
                freematch_momentum=0.99,
                adamatch_momentum=0.99,
                strong_magnitude=10,
                strong_erase=0.0,
            )
        config = dataclasses.replace(
            few,
            input=dataclasses.replace(few.input, batch_size=20),
            network=network,
            augment=Augment(crop_padding=1),
            optimization=Optimization(warmup_epochs=0.2, weight_decay=5e-4),
            unlabelled=unlabelled,
            epochs=1,
            epoch_steps=600,
            log_every=600,
        )
        return fit(config, tmp_path / consistency, console=quiet)["accuracy"]

    alone = accuracy("none")
    for consistency in ("fixmatch", "softmatch", "freematch", "adamatch"):
        assert accuracy(consistency) > alone + 0.05, consistency
