from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

import cnn_flax
from cnn_flax.layers import max_pool
from cnn_flax.models.googlenet import AuxiliaryHead, Inception
from tests.support import figures
from tests.support.model_checks import check_logits, check_training_pass, relative_norm
from tests.support.small_models import (
    feature_shapes,
    forward,
    random_variables,
    variable_shapes,
)

BOTH = pytest.mark.parametrize("name", ["googlenet", "googlenet_lrn"])


@pytest.mark.slow
def test_logits_match_the_reference_in_float32():
    check_logits("googlenet", "tv_googlenet")


@pytest.mark.slow
def test_a_training_pass_with_its_auxiliary_losses_matches_the_reference_in_float64(
    float64,
    optimized,
):
    check_training_pass("googlenet", "tv_googlenet", 0.3, dropout_rate=0.0)


@pytest.mark.parametrize(
    ("name", "net", "heads"),
    # torchvision's published checkpoint; the paper's table 1, with biases.
    [("googlenet", 6_624_904, 6_379_984), ("googlenet_lrn", 6_998_552, 6_379_728)],
)
def test_parameter_count_is_that_of_the_net_and_its_heads(name, net, heads):
    assert cnn_flax.model_info(name).parameters == net + heads
    shapes = shapes_of(cnn_flax.create_model(name, aux_logits=False))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == net


def test_published_weights_expect_mean_and_std_of_a_half():
    info = cnn_flax.model_info("googlenet")
    assert info.mean == info.std == (0.5, 0.5, 0.5)


def shapes_of(model) -> Any:
    return variable_shapes(model, 1, 32, 32, 3)


def some_images(size=32):
    return jax.random.normal(jax.random.key(1), (2, size, size, 3))


@BOTH
def test_features_leave_under_their_names_with_the_papers_sizes(name):
    assert feature_shapes(cnn_flax.create_model(name), 1, 224, 224, 3) == {
        "stem": (1, 28, 28, 192),
        "stage3": (1, 28, 28, 480),
        "stage4": (1, 14, 14, 832),
        "stage5": (1, 7, 7, 1024),
        "pre_logits": (1, 1024),
    }


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("size", [1, 31, 224])
def test_every_size_has_a_map_for_the_auxiliary_heads(name, size):
    model = cnn_flax.create_model(name, num_classes=7)
    shapes = feature_shapes(model, 1, size, size + 1, 3, train=True)
    assert shapes["aux1_logits"] == shapes["aux2_logits"] == (1, 7)


@pytest.mark.parametrize("fields", [{"aux_logits": False}, {"num_classes": 0}])
def test_there_are_nets_without_auxiliary_heads(fields):
    model = cnn_flax.create_model("googlenet", **fields)
    assert not [k for k in shapes_of(model)["params"] if "aux" in k]
    assert not [
        k for k in feature_shapes(model, 1, 32, 32, 3, train=True) if "aux" in k
    ]


def test_no_classes_give_the_pooled_features():
    model = cnn_flax.create_model("googlenet", num_classes=0)
    variables = shapes_of(model)
    out = jax.eval_shape(model.apply, variables, jnp.zeros((2, 32, 32, 3)))
    chex.assert_shape(out, (2, 1024))
    assert "head" not in variables["params"]


@pytest.fixture(scope="module")
def paper() -> Any:
    """The paper's net with three classes, and variables."""
    model = cnn_flax.create_model("googlenet_lrn", num_classes=3)
    return model, random_variables(model, 1, 32, 32, 3)


@pytest.mark.slow
@pytest.mark.long  # The reference's gradients, above, are of the other one's heads.
def test_every_parameter_gets_a_gradient_through_the_auxiliary_losses(paper):
    model, variables = paper
    quiet = model.clone(dropout_rate=0.0)

    @jax.jit
    @jax.grad
    def gradients(params, weight) -> Any:
        logits, features, _ = forward(quiet, {"params": params}, some_images(), True)
        labels = jnp.arange(2)
        loss = cnn_flax.losses.cross_entropy(logits, labels)
        for name in ("aux1_logits", "aux2_logits"):
            loss += weight * cnn_flax.losses.cross_entropy(features[name], labels)
        return loss

    largest: list[Any] = [
        traverse_util.flatten_dict(
            jax.tree.map(lambda x: jnp.abs(x).max(), gradients(variables["params"], w))
        )
        for w in (0.3, 0.0)
    ]
    for path, gradient in largest[0].items():
        assert gradient > 0, path
        assert bool(largest[1][path] > 0) is not path[0].startswith("aux")


@pytest.mark.slow
def test_evaluation_runs_without_the_auxiliary_heads_variables(paper):
    model, variables = paper
    params = {k: v for k, v in variables["params"].items() if not k.startswith("aux")}
    logits, features, _ = forward(model, variables, some_images())
    assert not [name for name in features if name.startswith("aux")]
    np.testing.assert_array_equal(
        logits, forward(model, {"params": params}, some_images())[0]
    )


@pytest.mark.slow
def test_bfloat16_computes_in_bfloat16_and_keeps_the_rest_in_float32(paper):
    model, variables = paper
    logits, features, _ = forward(
        model.clone(dtype=jnp.bfloat16), variables, some_images(), True
    )
    assert features["stage5"].dtype == jnp.bfloat16
    for x in (logits, features["pre_logits"], features["aux1_logits"]):
        assert x.dtype == jnp.float32
    low, _, _ = forward(model.clone(dtype=jnp.bfloat16), variables, some_images())
    # bfloat16 has 8 bits: 0.4 % per operation, over 22 layers.
    assert relative_norm(low, forward(model, variables, some_images())[0]) < 0.1


def dropout_rates(**fields):
    """The rate of every dropout that training runs."""
    model = cnn_flax.create_model("googlenet", **fields)
    rates = {}

    def see(next_function, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            rates["/".join(context.module.path)] = context.module.rate
        return next_function(*args, **kwargs)

    with nn.intercept_methods(see):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return rates


@pytest.mark.parametrize(
    ("fields", "rate", "aux_rate"),
    [
        ({}, 0.2, 0.7),
        ({"dropout_rate": 0.0}, 0.0, 0.0),
        ({"dropout_rate": 0.0, "aux_dropout_rate": 0.7}, 0.0, 0.7),
        ({"aux_dropout_rate": 0.0}, 0.2, 0.0),
    ],
)
def test_one_field_turns_all_dropout_off(fields, rate, aux_rate):
    assert dropout_rates(**fields) == {
        "dropout": rate,
        "aux1/dropout": aux_rate,
        "aux2/dropout": aux_rate,
    }


@pytest.mark.parametrize("field", ["dropout_rate", "aux_dropout_rate"])
def test_a_bad_dropout_rate_is_refused_at_construction(field):
    with pytest.raises(ValueError, match=rf"{field} must be in \[0, 1\), got 1.0"):
        cnn_flax.create_model("googlenet", **{field: 1.0})


# Blocks.


@pytest.mark.parametrize("large_kernel", [3, 5])
def test_the_branches_of_an_inception_module_stand_in_the_papers_order(large_kernel):
    block = partial(cnn_flax.layers.ConvBlock, norm=None)
    module = Inception((2, 3, 4, 5, 6, 7), large_kernel, block)
    variables = random_variables(module, 1, 9, 9, 3)
    # All positive, and one bright pixel in the middle.
    variables = jax.tree.map(jnp.abs, variables)
    images = jnp.ones((1, 9, 9, 3))
    bright = images.at[0, 4, 4].add(1)
    lit, unlit = (jax.jit(module.apply)(variables, x) for x in (bright, images))
    difference = lit - unlit
    chex.assert_shape(difference, (1, 9, 9, 2 + 4 + 6 + 7))
    branches = jnp.split(difference[0], [2, 6, 12], axis=-1)
    widths = [int((jnp.abs(b) > 0).any((0, 2)).sum()) for b in branches]
    assert widths == [1, 3, large_kernel, 3]
    # The fourth branch pools before it convolves.
    pooled: Any = block(7, 1).apply(
        {"params": variables["params"]["branch4"]}, max_pool(bright, 3, 1, padding=1)
    )
    np.testing.assert_allclose(lit[..., 12:], pooled, rtol=1e-5)


@pytest.mark.parametrize(
    ("original", "windows"),
    [
        # Five pixels each, three apart, as in the paper.
        (True, [(0, 5), (3, 8), (6, 11), (9, 14)]),
        # As torch's adaptive pooling divides 14 pixels.
        (False, [(0, 4), (3, 7), (7, 11), (10, 14)]),
    ],
)
def test_an_auxiliary_head_pools_14_px_to_4_with_overlapping_windows(original, windows):
    head = AuxiliaryHead(
        2, original, conv_block=partial(cnn_flax.layers.ConvBlock, norm=None)
    )
    x = jax.random.normal(jax.random.key(0), (1, 14, 14, 3))
    variables = random_variables(head, *x.shape)
    state: Any = head.apply(variables, x, capture_intermediates=True)[1]
    (after,) = state["intermediates"]["conv"]["__call__"]
    pooled = jnp.array(
        [
            [x[0, top:bottom, left:right].mean((0, 1)) for left, right in windows]
            for top, bottom in windows
        ]
    )
    conv = variables["params"]["conv"]["conv"]
    expected = nn.relu(pooled @ conv["kernel"][0, 0] + conv["bias"][None, None])
    np.testing.assert_allclose(after[0], expected, rtol=1e-4, atol=1e-6)


# Weights.


@pytest.fixture(scope="module")
def checkpoint():
    return figures.seeded_state_dict(
        figures.model_figures("tv_googlenet")["state_dict"]
    )


def without_heads(checkpoint):
    return {k: v for k, v in checkpoint.items() if not k.startswith("aux")}


def test_a_checkpoint_comes_back_bit_by_bit(checkpoint):
    for state_dict in (checkpoint, without_heads(checkpoint)):
        variables = cnn_flax.weights.from_torch("googlenet", state_dict)
        back = cnn_flax.weights.to_torch("googlenet", variables)
        chex.assert_trees_all_equal(back, state_dict)


def test_auxiliary_heads_are_kept_where_there_are_some(checkpoint):
    variables = cnn_flax.weights.from_torch("googlenet", checkpoint)
    kernel = variables["params"]["aux1"]["fc1"]["kernel"]
    # Its inputs are ordered (height, width, channel); torch's (channel, ...).
    np.testing.assert_array_equal(
        kernel.reshape(4, 4, 128, 1024)[1, 2, 3],
        checkpoint["aux1.fc1.weight"].reshape(1024, 128, 4, 4)[:, 3, 1, 2],
    )
    less = cnn_flax.weights.from_torch("googlenet", without_heads(checkpoint))
    assert not [k for k in less["params"] if k.startswith("aux")]
    for collection in ("params", "batch_stats"):
        rest = {k: variables[collection][k] for k in less[collection]}
        chex.assert_trees_all_equal(rest, less[collection])


def test_auxiliary_heads_may_be_left_out_or_asked_for(checkpoint):
    from_torch = partial(cnn_flax.weights.from_torch, "googlenet")
    chex.assert_trees_all_equal(
        from_torch(checkpoint, aux_logits=False), from_torch(without_heads(checkpoint))
    )
    with pytest.raises(cnn_flax.weights.WeightsError, match="Missing: 'aux1.conv"):
        from_torch(without_heads(checkpoint), aux_logits=True)


def test_the_papers_net_takes_the_same_names(paper, checkpoint):
    model, variables = paper
    state_dict = cnn_flax.weights.to_torch("googlenet_lrn", variables)
    names = {k for k in checkpoint if ".bn." not in k}
    biases = {k.replace("weight", "bias") for k in names}
    assert set(state_dict) == names | biases
    back = cnn_flax.weights.from_torch("googlenet_lrn", state_dict)
    chex.assert_trees_all_equal(back, variables)


@pytest.mark.parametrize("heads", [True, False])
def test_pretrained_nets_have_the_heads_that_the_file_has(heads, checkpoint, tmp_path):
    state_dict = checkpoint if heads else without_heads(checkpoint)
    path = tmp_path / "googlenet.npz"
    np.savez(path, **state_dict)
    model, variables = cnn_flax.load_pretrained("googlenet", path)
    assert model.aux_logits is heads
    assert ("aux2" in variables["params"]) is heads
    shapes = shapes_of(model)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, shapes)


def test_new_classes_are_those_of_every_head(checkpoint, tmp_path):
    path = tmp_path / "googlenet.npz"
    np.savez(path, **checkpoint)
    _, variables = cnn_flax.load_pretrained("googlenet", path, num_classes=4)
    params = variables["params"]
    for kernel in (params["head"]["kernel"], params["aux1"]["fc2"]["kernel"]):
        assert kernel.shape == (1024, 4)
    assert params["aux2"]["fc2"]["bias"].shape == (4,)
