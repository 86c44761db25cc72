import dataclasses
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import cnn_flax
from cnn_flax import losses
from tests.support.small_models import forward, random_variables
from train.config import (
    Augment,
    Config,
    Distillation,
    Input,
    Network,
    Optimization,
    Selection,
    Unlabelled,
)
from train.errors import UserError
from train.learn.distillation import distilled, dkd, hint, kd, regressor
from train.learn.inputs import train_inputs
from train.learn.objectives import OBJECTIVE
from train.learn.semi_supervised import interleave, separate
from train.learn.step import TrainState
from train.learn.teacher import Teacher, teacher_pass
from train.run.loop import fit

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
MEAN, STD = (0.3,), (0.4,)
T = 3.0


class Net(nn.Module):
    """A convolution with BatchNorm, and a head."""

    channels: int

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(self.channels, (3, 3), name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, name="bn")(x)
        self.sow("intermediates", "stage1", x)
        return nn.Dense(10, name="head")(nn.relu(x).mean(axis=(1, 2)))


STUDENT, TEACHER = Net(3), Net(5)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def make_teacher(model: nn.Module = TEACHER, variables=None, **options):
    """A teacher, and its pass over images with the teacher's normalisation."""
    variables = variables or random_variables(model, 1, 4, 4, 1)
    teacher = Teacher("a teacher", model, variables, MEAN, STD)
    return teacher, teacher_pass(teacher, MEAN, STD, **options)


def logits_of(teacher, images) -> Any:
    return forward(teacher.model, teacher.variables, images)[0]


def state_of(model, variables, teacher=None, **own):
    params = {**variables["params"], **own}
    stats = variables.get("batch_stats", {})
    step = jnp.asarray(5, jnp.int32)
    return TrainState(step, params, stats, opt_state=(), teacher=teacher)


def run(objective, state, batch, key=KEY):
    loss = jax.jit(objective)
    total, (changes, metrics) = loss(state.params, state, batch, key)
    return total, changes, metrics


def training_outputs(model, variables, images):
    """Logits, features and new statistics of a model without dropout, in training."""
    logits, features, statistics = forward(model, variables, images, True)
    return logits, features["stage1"], statistics


@pytest.fixture(scope="module")
def student():
    return random_variables(STUDENT, 1, 4, 4, 1)


@pytest.fixture
def batch():
    return {"image": normal(6, 4, 4, 1), "label": jnp.arange(6)}


SMOOTHED = partial(losses.cross_entropy, label_smoothing=0.1)


@pytest.mark.parametrize(
    ("loss_fn", "expected"),
    [
        (
            kd(T, 0.7, SMOOTHED),
            lambda s, t, y: (
                0.7 * losses.distillation(s, t, temperature=T)
                + 0.3 * losses.cross_entropy(s, y, 0.1)
            ),
        ),
        (kd(T, 0.7), lambda s, t, y: losses.distillation(s, t, y, T, 0.7)),
        (
            kd(T, 0.7, standardize=True),
            lambda s, t, y: losses.distillation(s, t, y, T, 0.7, standardize=True),
        ),
        (
            dkd(T, 0.5, 2.0, SMOOTHED),
            lambda s, t, y: (
                losses.decoupled_distillation(s, t, y, T, 0.5, 2.0)
                + losses.cross_entropy(s, y, 0.1)
            ),
        ),
    ],
    ids=["kd, smoothed", "kd", "kd, standardized", "dkd"],
)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_the_teachers_logits_are_learned_with_the_librarys_losses(
    student, batch, loss_fn, expected, soft
):
    if soft:
        batch["label"] = jax.nn.softmax(normal(6, 10))
    teacher, teach = make_teacher()
    state = state_of(STUDENT, student, teacher.variables)
    total, changes, metrics = run(distilled(STUDENT, teach, loss_fn), state, batch)
    logits, _, statistics = training_outputs(STUDENT, student, batch["image"])
    targets = logits_of(teacher, batch["image"])
    loss = expected(logits, targets, batch["label"])
    np.testing.assert_allclose(total, loss, rtol=1e-5)
    chex.assert_trees_all_close(changes["batch_stats"], statistics, rtol=1e-5)
    classes = batch["label"].argmax(-1) if soft else batch["label"]
    expected_metrics = {
        "loss": loss,
        "accuracy": (logits.argmax(-1) == classes).mean(),
        "agreement": (logits.argmax(-1) == targets.argmax(-1)).mean(),
    }
    chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-5)


def test_a_hint_compares_regressed_features_and_trains_the_regressor(student, batch):
    teacher, teach = make_teacher(features=("stage1",))
    own = regressor(STUDENT, teacher, "stage1", (4, 4, 1))(KEY)
    chex.assert_shape(own["kernel"], (3, 5))
    objective = distilled(STUDENT, teach, hint("stage1", 0.5), features=("stage1",))
    state = state_of(STUDENT, student, teacher.variables, **{OBJECTIVE: own})
    total, _, metrics = run(objective, state, batch)
    logits, ours, _ = training_outputs(STUDENT, student, batch["image"])
    theirs = cnn_flax.features(TEACHER, teacher.variables, batch["image"], ["stage1"])
    ours, kernel, bias = map(np.asarray, (ours, own["kernel"], own["bias"]))
    expected = 0.25 * np.mean((ours @ kernel + bias - theirs["stage1"]) ** 2)
    expected += losses.cross_entropy(logits, batch["label"])
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-6)
    grads, _ = jax.jit(jax.grad(objective, has_aux=True))(
        state.params, state, batch, KEY
    )
    assert all(leaf.any() for leaf in jax.tree.leaves(grads[OBJECTIVE]))
    assert OBJECTIVE not in state.variables["params"]


def test_a_hint_that_does_not_fit_is_refused():
    teacher, _ = make_teacher()
    with pytest.raises(UserError, match="--hint-at stag1 does not fit the model: .*st"):
        regressor(STUDENT, teacher, "stag1", (4, 4, 1))

    class Smaller(Net):
        @nn.compact
        def __call__(self, x, train=False):
            self.sow("intermediates", "stage1", x[:, ::2])
            return x.mean((1, 2))

    smaller, _ = make_teacher(Smaller(1))
    with pytest.raises(UserError, match="features are 4 x 4 x 3, the teacher's 2 x 4"):
        regressor(STUDENT, smaller, "stage1", (4, 4, 1))


@pytest.mark.parametrize("loss_fn", [kd(T, 0.7), dkd(T, 1.0, 8.0)], ids=["kd", "dkd"])
def test_unlabelled_images_add_only_the_divergence(student, batch, loss_fn):
    teacher, teach = make_teacher()
    batch["unlabelled"] = {"image": normal(12, 4, 4, 1), "label": jnp.arange(12)}
    objective = distilled(STUDENT, teach, loss_fn, weight=0.5, ramp_up_steps=10)
    state = state_of(STUDENT, student, teacher.variables)
    total, _, metrics = run(objective, state, batch)
    images = interleave([batch["image"], batch["unlabelled"]["image"]])
    logits, _, _ = training_outputs(STUDENT, student, images)
    ours = separate(logits, [1, 2])
    theirs = separate(logits_of(teacher, images), [1, 2])
    outputs = [{"logits": ours[0]}, {"logits": theirs[0]}]
    labelled = loss_fn(*outputs, batch["label"], None)
    more = losses.distillation(ours[1], theirs[1], temperature=T)
    # exp(-5 (1 - 5 / 10)^2): step 5 of 10.
    expected = labelled + 0.5 * np.exp(-1.25) * more
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    agreed = (ours[1].argmax(-1) == theirs[1].argmax(-1)).mean()
    chex.assert_trees_all_close(metrics["unlabelled_loss"], more, rtol=1e-5)
    chex.assert_trees_all_close(metrics["unlabelled_agreement"], agreed)
    chex.assert_trees_all_close(metrics["loss"], labelled, rtol=1e-5)


def test_cached_logits_replace_the_teachers_pass(student, batch):
    teacher, teach = make_teacher()
    batch["unlabelled"] = {"image": normal(6, 4, 4, 1), "label": jnp.arange(6)}
    objective = distilled(STUDENT, teach, kd(T, 0.7))
    computed = run(objective, state_of(STUDENT, student, teacher.variables), batch)
    for stream in (batch, batch["unlabelled"]):
        stream["teacher_logits"] = logits_of(teacher, stream["image"])
    cached = run(objective, state_of(STUDENT, student), batch)
    chex.assert_trees_all_close(cached, computed, rtol=1e-5)


@pytest.mark.parametrize("mix", [{"cutmix": 1.0}, {"mixup": 1.0}], ids=["cut", "mix"])
def test_soft_labels_pass_through_cutmix_and_mixup(student, batch, mix):
    batch["image"] = jnp.asarray(RNG.integers(0, 256, (6, 4, 4, 1)), jnp.uint8)
    batch["label"] = soft = jax.nn.softmax(normal(6, 10))
    prepare = train_inputs(Augment(**mix), mean=MEAN, std=STD, num_classes=10)
    mixed = jax.jit(prepare)(jax.random.split(KEY, 6), batch, KEY)
    weights = jnp.linalg.lstsq(soft.T, mixed["label"].T)[0].T
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-3)  # Of its pair's labels.
    assert ((weights > 0.01).sum(1) == 2).any()

    teacher, teach = make_teacher()
    state = state_of(STUDENT, student, teacher.variables)
    total, _, _ = run(distilled(STUDENT, teach, kd(T, 0.7)), state, mixed)
    logits, _, _ = training_outputs(STUDENT, student, mixed["image"])
    targets = logits_of(teacher, mixed["image"])
    expected = losses.distillation(logits, targets, mixed["label"], T, 0.7)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


NOISES = {
    "batch statistics": {},
    "dropout": {"dropout_rate": 0.5},
    "drop path": {"drop_path_rate": 0.5},
}


@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_on_for_the_student_and_off_for_the_teacher(noise):
    """Both are the same model with the same weights, so that only noise differs."""
    fields = {"stage_sizes": (1, 1), "width": 4, "small_inputs": True}
    model = cnn_flax.create_model("resnet18", num_classes=10, **fields, **NOISES[noise])
    variables = random_variables(model, 1, 8, 8, 1)
    batch = {"image": normal(6, 8, 8, 1), "label": jnp.arange(6)}
    _, teach = make_teacher(model, variables)
    state = state_of(model, variables, variables)

    def objective(params, state, batch, key):
        outputs = []

        def loss_fn(student, teacher, labels, own):
            outputs.extend([student["logits"], teacher["logits"]])
            return jnp.zeros(())

        # Without batch statistics, dropout and drop path are the only noise.
        frozen = noise != "batch statistics"
        distilled(model, teach, loss_fn, freeze_bn=frozen)(params, state, batch, key)
        return outputs

    outputs_of, apply = jax.jit(objective), jax.jit(model.apply)
    quiet = apply(variables, batch["image"])
    found = [
        outputs_of(state.params, state, batch, jax.random.key(i)) for i in range(2)
    ]
    for student, teacher in found:
        np.testing.assert_allclose(teacher, quiet, rtol=1e-5, atol=1e-5)
        assert np.abs(student - quiet).max() > 1e-2
    by_key = np.abs(found[0][0] - found[1][0]).max()
    assert by_key == 0 if noise == "batch statistics" else by_key > 1e-2


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_a_student_beats_itself_trained_without_its_teacher(tmp_path, quiet):
    """With two labels per class and the same steps; the teacher has all labels."""
    config = Config(
        input=Input("digits", image_size=8, batch_size=20, mean=(0.3,), std=(0.4,)),
        selection=Selection(labels_per_class=2),
        network=Network(
            "resnet18", {"stage_sizes": (1,), "width": 8, "small_inputs": True}
        ),
        augment=Augment(crop_padding=1),
        optimization=Optimization(warmup_epochs=0.5, weight_decay=5e-4),
        epochs=2,
        epoch_steps=100,
    )
    larger = Network(
        "resnet18", {"stage_sizes": (1, 1), "width": 16, "small_inputs": True}
    )
    teacher = dataclasses.replace(
        config,
        input=dataclasses.replace(config.input, batch_size=100),
        selection=Selection(),
        network=larger,
        epochs=4,
        epoch_steps=0,
    )

    def accuracy(arm, config, seed):
        run = dataclasses.replace(config, seed=seed)
        return fit(run, tmp_path / f"{arm} {seed}", console=quiet)["accuracy"]

    found = {"alone": [], "taught": [], "on the rest too": []}
    for seed in range(3):  # It also selects the test images: one teacher per seed.
        accuracy("teacher", teacher, seed)
        by = Distillation(str(tmp_path / f"teacher {seed}"))
        taught = dataclasses.replace(config, distillation=by)
        more = dataclasses.replace(taught, unlabelled=Unlabelled("rest"))
        for arm, run in zip(found, (config, taught, more), strict=True):
            found[arm].append(accuracy(arm, run, seed))
    alone, taught, more = map(np.mean, found.values())
    assert alone < taught < more, found
