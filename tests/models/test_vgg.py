from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_flax
from cnn_flax.layers import Conv, adaptive_avg_pool, max_pool
from cnn_flax.models.vgg import VGG
from tests.support import figures
from tests.support.model_checks import check_logits, check_training_pass, relative_norm
from tests.support.small_models import feature_shapes, forward, random_variables

# Over 130 million parameters each.
slow = pytest.mark.slow
long = (slow, pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "vgg11",
        "vgg16_bn",
        pytest.param("vgg16", marks=long),
        pytest.param("vgg19", marks=long),
    ],
)
def test_logits_match_the_reference_in_float32(name):
    check_logits(name, f"tv_{name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11", pytest.param("vgg16_bn", marks=long)])
def test_a_training_pass_matches_the_reference_in_float64(name, float64, optimized):
    check_training_pass(name, f"tv_{name}", dropout_rate=0.0)


# Nets of one stage and few channels: at 14 px their last map is 7 px wide.


def small(**fields):
    sizes = {"stage_sizes": (1,), "width": 4, "hidden_features": 16, "num_classes": 5}
    return VGG(**{**sizes, **fields})


def variables_of(model, size=14):
    return random_variables(model, 1, size, size, 3)


def some_images(*shape):
    return jax.random.normal(jax.random.key(1), (2, *shape, 3))


def test_features_leave_under_their_names_with_the_papers_sizes():
    shapes = feature_shapes(cnn_flax.create_model("vgg16_bn"), 1, 224, 224, 3)
    stages = {
        "stage1": (1, 112, 112, 64),
        "stage2": (1, 56, 56, 128),
        "stage3": (1, 28, 28, 256),
        "stage4": (1, 14, 14, 512),
        "stage5": (1, 7, 7, 512),
    }
    assert {k: shapes[k] for k in stages} == stages
    assert shapes["conv1_1"] == shapes["conv1_2"] == (1, 224, 224, 64)
    assert shapes["conv5_3"] == (1, 14, 14, 512)
    assert shapes["pre_logits"] == (1, 4096)
    assert len(shapes) == 5 + 13 + 1


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_stage_is_the_pooling_of_its_last_convolution(batch_norm):
    model = small(stage_sizes=(2,), batch_norm=batch_norm)
    _, features, _ = forward(model, variables_of(model), some_images(14, 14))
    assert features["conv1_2"].min() == 0  # It is after the ReLU.
    np.testing.assert_array_equal(
        features["stage1"], max_pool(features["conv1_2"], 2, 2)
    )


def test_the_classifier_is_convolutions():
    params = variables_of(small())["params"]
    kernels = {k: params[k]["kernel"].shape for k in ("fc6", "fc7", "head")}
    assert kernels == {
        "fc6": (7, 7, 4, 16),
        "fc7": (1, 1, 16, 16),
        "head": (1, 1, 16, 5),
    }


def classify(params, window):
    """The classifier on one window of 7 x 7 px, as dense layers."""

    def dense(name, x):
        kernel = params[name]["kernel"]
        return x @ kernel.reshape(-1, kernel.shape[-1]) + params[name]["bias"][None]

    x = window.reshape(len(window), -1)
    return dense("head", jax.nn.relu(dense("fc7", jax.nn.relu(dense("fc6", x)))))


def test_dense_evaluation_averages_the_scores_of_every_window():
    images = some_images(18, 17)
    model = small(dense_evaluation=True)
    variables = variables_of(model)
    logits, features, _ = forward(model, variables, images)
    chex.assert_shape(features["stage1"], (2, 9, 8, 4))
    scores = [
        classify(variables["params"], features["stage1"][:, i : i + 7, j : j + 7])
        for i in range(3)
        for j in range(2)
    ]
    np.testing.assert_allclose(logits, np.mean(scores, 0), rtol=1e-4, atol=1e-5)
    pooled, _, _ = forward(small(), variables, images)
    assert relative_norm(pooled, logits) > 1e-3


def test_dense_evaluation_pools_an_axis_that_is_too_short():
    model = small(dense_evaluation=True)
    variables = variables_of(model)
    logits, features, _ = forward(model, variables, some_images(8, 18))
    pooled = adaptive_avg_pool(features["stage1"], (7, 9))
    scores = [classify(variables["params"], pooled[:, :, j : j + 7]) for j in range(3)]
    np.testing.assert_allclose(logits, np.mean(scores, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "train"), [((14, 14), False), ((18, 17), True)])
def test_dense_evaluation_changes_nothing_at_224_px_or_in_training(size, train):
    variables = variables_of(small())
    logits = [
        forward(
            small(dense_evaluation=dense, dropout_rate=0.0),
            variables,
            some_images(*size),
            train,
        )[0]
        for dense in (False, True)
    ]
    np.testing.assert_array_equal(logits[0], logits[1])


def test_dropout_is_on_in_training_alone():
    model = small()
    variables = variables_of(model)
    images = some_images(14, 14)
    logits, _, _ = forward(model, variables, images, True, 1)
    assert not jnp.array_equal(logits, forward(model, variables, images, True, 2)[0])
    np.testing.assert_array_equal(logits, forward(model, variables, images, True, 1)[0])
    quiet, _, _ = forward(small(dropout_rate=0.0), variables, images, True)
    evaluated, _, _ = forward(model, variables, images)
    np.testing.assert_allclose(evaluated, quiet, rtol=1e-5)


def test_training_changes_the_statistics_and_evaluation_does_not():
    model = small(batch_norm=True, bn_momentum=0.75)
    variables = variables_of(model)
    images = 3 + some_images(14, 14)
    _, _, same = forward(model, variables, images)
    chex.assert_trees_all_equal(same, variables["batch_stats"])
    _, _, new = forward(model, variables, images, True)
    conv = variables["params"]["stage1_conv1"]["conv"]
    maps: Any = Conv(4, (3, 3), padding=1).apply({"params": conv}, images)
    before, after = (
        tree["stage1_conv1"]["bn"]["mean"] for tree in (variables["batch_stats"], new)
    )
    np.testing.assert_allclose(
        after, 0.75 * before + 0.25 * jnp.mean(maps, (0, 1, 2)), rtol=1e-4
    )


def test_no_classes_give_what_the_head_would_take():
    model = small(num_classes=0)
    variables = variables_of(model)
    x, features, _ = forward(model, variables, some_images(14, 14))
    chex.assert_shape(x, (2, 16))
    np.testing.assert_array_equal(x, features["pre_logits"])
    assert "head" not in variables["params"]


def test_bfloat16_computes_in_bfloat16_and_keeps_the_rest_in_float32():
    model = small(batch_norm=True, dtype=jnp.bfloat16)
    variables = variables_of(model)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    images = some_images(14, 14)
    logits, features, _ = forward(model, variables, images)
    assert features["stage1"].dtype == jnp.bfloat16
    assert features["pre_logits"].dtype == logits.dtype == jnp.float32
    exact, _, _ = forward(small(batch_norm=True), variables, images)
    # bfloat16 has 8 bits: 0.4 % per operation, over about ten of them.
    assert relative_norm(logits, exact) < 0.05


# Weights.

FIELDS = {"width": 2, "hidden_features": 4}


# timm's names of the classifier, whose hidden layers are convolutions in timm.
TIMM = {
    "classifier.0": "pre_logits.fc1",
    "classifier.3": "pre_logits.fc2",
    "classifier.6": "head.fc",
}


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_a_checkpoint_comes_back_bit_by_bit(name):
    model = cnn_flax.create_model(name, num_classes=3, **FIELDS)
    variables = variables_of(model, 32)
    state_dict = cnn_flax.weights.to_torch(name, variables)
    reference = figures.model_figures(f"tv_{name}")["state_dict"]
    assert set(state_dict) == set(reference)
    assert state_dict["classifier.0.weight"].shape == (4, 16 * 7 * 7)
    assert state_dict["classifier.6.weight"].shape == (3, 4)
    back = cnn_flax.weights.from_torch(name, state_dict, **FIELDS)
    chex.assert_trees_all_equal(back, variables)


def test_timms_names_are_read_too():
    variables = variables_of(
        cnn_flax.create_model("vgg11", num_classes=3, **FIELDS), 32
    )
    torchvision = cnn_flax.weights.to_torch("vgg11", variables)
    timm = {}
    for entry, x in torchvision.items():
        module, _, leaf = entry.rpartition(".")
        timm[f"{TIMM.get(module, module)}.{leaf}"] = x
    for module, size in [("pre_logits.fc1", 7), ("pre_logits.fc2", 1)]:
        x = timm[f"{module}.weight"]
        timm[f"{module}.weight"] = x.reshape(len(x), -1, size, size)
    assert timm["pre_logits.fc1.weight"].shape == (4, 16, 7, 7)
    back = cnn_flax.weights.from_torch("vgg11", timm, **FIELDS)
    chex.assert_trees_all_equal(back, variables)


def test_a_dense_classifier_of_another_shape_is_refused():
    variables = variables_of(cnn_flax.create_model("vgg11", **FIELDS), 32)
    state_dict = cnn_flax.weights.to_torch("vgg11", variables)
    state_dict["classifier.0.weight"] = state_dict["classifier.0.weight"][:, 1:]
    message = r"'classifier.0.weight' \[4, 783\] for \[4, 784\]"
    with pytest.raises(cnn_flax.weights.WeightsError, match=message):
        cnn_flax.weights.from_torch("vgg11", state_dict, **FIELDS)


# Bad arguments.


def test_images_that_the_poolings_leave_nothing_of_are_refused():
    model = cnn_flax.create_model("vgg11", **FIELDS)
    assert feature_shapes(model, 1, 32, 33, 3)["stage5"] == (1, 1, 1, 16)
    with pytest.raises(ValueError, match="at least 32 x 32 px, got 32 x 31"):
        feature_shapes(model, 1, 32, 31, 3)


def test_a_bad_dropout_rate_is_refused_at_construction():
    with pytest.raises(ValueError, match=r"dropout_rate must be in \[0, 1\), got -0.5"):
        small(dropout_rate=-0.5)
