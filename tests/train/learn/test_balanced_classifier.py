import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.train.learn.test_adamatch import softmax
from train.config import Augment, Config, UnevenClasses, Unlabelled
from train.errors import UserError
from train.learn.balanced_classifier import balanced_classifier
from train.learn.label_loss import keep_rates
from train.learn.method_table import method_row
from train.learn.objectives import OBJECTIVE
from train.learn.step import TrainState
from train.learn.transfer import find_layers

SHAPE, SIZE, RATIO, CLASSES = (2, 2, 1), 6, 2, 3
COUNTS = np.array([40, 20, 10])
VIEWS = ("image", "strong", "second")


class Net(nn.Module):
    """Four features of four pixels, and a linear head."""

    num_classes: int = CLASSES

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(4, name="body")(images.reshape(len(images), 4))
        self.sow("intermediates", "pre_logits", x)
        return nn.Dense(self.num_classes, name="head")(x) if self.num_classes else x


def batch_of(seed):
    rng = np.random.default_rng(seed)
    views = rng.standard_normal((3, RATIO * SIZE, *SHAPE))
    return {
        "image": rng.standard_normal((SIZE, *SHAPE)),
        "label": rng.integers(0, CLASSES, SIZE),
        "draw": rng.uniform(size=SIZE),
        "unlabelled": {
            **dict(zip(VIEWS, views, strict=True)),
            "draw": rng.uniform(size=RATIO * SIZE),
        },
    }


def dense(rng, width):
    return {
        "kernel": jnp.asarray(2 * rng.standard_normal((4, width))),
        "bias": jnp.asarray(rng.standard_normal(width)),
    }


def state_of(step):
    rng = np.random.default_rng(step)
    first = {"head": {"head": dense(rng, CLASSES)}}
    params = {
        "body": dense(rng, 4),
        "head": dense(rng, CLASSES),
        OBJECTIVE: first,
    }
    return TrainState(jnp.array(step, jnp.int32), params, {}, ())


def entropy(row, target):
    return -sum(t * math.log(p) for t, p in zip(target, softmax(row), strict=True))


def one_hot(k):
    return [float(c == k) for c in range(CLASSES)]


def reference(params, batch, progress, tau):
    """The losses, image by image: FixMatch's two, both balanced ones, and counts."""

    def apply(layer, x):
        return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])

    def logits(images):
        x = apply(params["body"], images.reshape(-1, 4))
        first = params[OBJECTIVE]["head"]["head"]
        return apply(first, x), apply(params["head"], x)

    rates = [10 / count for count in COUNTS]
    labelled = cls = unlabelled = con = 0.0
    kept = used = 0
    for i, (first, own) in enumerate(zip(*logits(batch["image"]), strict=True)):
        label = batch["label"][i]
        labelled += entropy(first, one_hot(label)) / SIZE
        if batch["draw"][i] < rates[label]:
            cls += entropy(own, one_hot(label)) / SIZE
            kept += 1
    views = [logits(batch["unlabelled"][name]) for name in VIEWS]
    count = RATIO * SIZE
    for i in range(count):
        q, own = softmax(views[0][0][i]), softmax(views[0][1][i])
        if max(q) >= tau:
            for view in views[1:]:
                loss = entropy(view[0][i], one_hot(q.index(max(q))))
                unlabelled += loss / 2 / count
        rate = 1 - progress * (1 - rates[own.index(max(own))])
        if max(own) >= tau and batch["unlabelled"]["draw"][i] < rate:
            con += sum(entropy(view[1][i], own) for view in views[1:]) / count
            used += 1
    return labelled, unlabelled, cls + con, kept, used


def objective_of():
    return balanced_classifier(
        Net(),
        find_layers(Net(), SHAPE),
        SHAPE,
        COUNTS,
        threshold=0.7,
        weight=3,
        steps=5,
    )


@pytest.mark.usefixtures("float64")
def test_four_steps_are_those_of_the_papers_equations():
    objective = jax.jit(objective_of())
    kept = used = 0
    for step in range(4):
        state, batch = state_of(step), batch_of(step)
        loss, (_, metrics) = objective(state.params, state, batch, jax.random.key(0))
        labelled, unlabelled, balanced, *counts = reference(
            state.params, batch, step / 5, 0.7
        )
        total = labelled + 3 * unlabelled + balanced
        np.testing.assert_allclose(loss, total, rtol=1e-12)
        np.testing.assert_allclose(metrics["unlabelled_loss"], unlabelled, rtol=1e-12)
        np.testing.assert_allclose(metrics["balanced_loss"], balanced, rtol=1e-12)
        share = counts[1] / (RATIO * SIZE)
        np.testing.assert_allclose(metrics["unlabelled_used"], share, rtol=1e-6)
        kept, used = kept + counts[0], used + counts[1]
    assert 5 < kept < 4 * SIZE - 5 and 5 < used < 4 * RATIO * SIZE - 5


@pytest.mark.usefixtures("float64")
def test_the_features_learn_from_both_heads_and_no_target_has_a_gradient():
    state, batch = state_of(2), batch_of(2)
    batch["unlabelled"]["draw"] = np.zeros(RATIO * SIZE)
    objective = objective_of()

    def value(params, name):
        return objective(params, state, batch, jax.random.key(0))[1][1][name]

    gradient = jax.jit(jax.grad(value), static_argnames="name")
    balanced = gradient(state.params, name="balanced_loss")
    assert balanced["body"]["kernel"].any() and balanced["head"]["kernel"].any()
    assert not balanced[OBJECTIVE]["head"]["head"]["kernel"].any()
    first = gradient(state.params, name="unlabelled_loss")
    assert first["body"]["kernel"].any() and not first["head"]["kernel"].any()
    # The soft target is a constant: a bias' gradient is p - q, of both strong views.
    logits = {}
    for name in VIEWS:
        x = batch["unlabelled"][name].reshape(-1, 4)
        for layer in (state.params["body"], state.params["head"]):
            x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        logits[name] = np.array([softmax(row) for row in x])
    weak = logits["image"]
    mask = weak.max(1) >= 0.7
    expected = sum((logits[name] - weak)[mask].sum(0) for name in VIEWS[1:])
    expected = expected / (RATIO * SIZE)
    # And of the labelled images that are kept.
    kept = batch["draw"] < (10 / COUNTS)[batch["label"]]
    x = batch["image"].reshape(-1, 4)
    for layer in (state.params["body"], state.params["head"]):
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    own = np.array([softmax(row) for row in x]) - np.eye(CLASSES)[batch["label"]]
    expected += own[kept].sum(0) / SIZE
    np.testing.assert_allclose(balanced["head"]["bias"], expected, rtol=1e-9)


def test_classes_without_images_are_not_the_rarest():
    np.testing.assert_allclose(keep_rates(np.array([8, 0, 2])), [0.25, 1, 1])


def test_the_flag_asks_for_the_method_and_needs_fixmatch():
    options = Unlabelled("rest", consistency="fixmatch")
    abc = UnevenClasses(abc=True)
    config = Config(unlabelled=options, uneven_classes=abc)
    assert method_row(config).flags == "--unlabelled --consistency fixmatch --abc"
    with pytest.raises(UserError, match="--abc needs .*--consistency fixmatch"):
        Config(uneven_classes=abc)
    with pytest.raises(UserError, match="leave out --mixup"):
        Config(unlabelled=options, uneven_classes=abc, augment=Augment(mixup=0.2))
    with pytest.raises(UserError, match="--balanced-sampling.*give one of them"):
        UnevenClasses(abc=True, balanced_sampling=True)
