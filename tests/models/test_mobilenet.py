import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import cnn_flax
from cnn_flax.models.mobilenet import InvertedResidual, MobileNetV2
from cnn_flax.weights.dialects import dialects, rule_of
from cnn_flax.weights.variables import variable_shapes
from tests.support import figures
from tests.support.model_checks import check_logits, check_training_pass
from tests.support.small_models import (
    drop_path_rates,
    feature_shapes,
    forward,
    random_variables,
)


@pytest.mark.slow
def test_logits_match_the_reference_in_float32():
    check_logits("mobilenet_v2", "tv_mobilenet_v2")


@pytest.mark.slow
def test_a_training_pass_matches_the_reference_in_float64(float64):
    check_training_pass("mobilenet_v2", "tv_mobilenet_v2", dropout_rate=0.0)


@pytest.mark.parametrize(
    ("width_multiplier", "count"),
    # Counted on torchvision 0.29.1's mobilenet_v2(width_mult=...).
    [(0.35, 1_677_128), (0.5, 1_968_680), (0.75, 2_636_424), (1.4, 6_108_776)],
)
def test_parameter_count_follows_the_width_multiplier(width_multiplier, count):
    fields = {"width_multiplier": width_multiplier}
    shapes = variable_shapes("mobilenet_v2", fields)
    assert count == sum(
        math.prod(leaf.shape)
        for path, leaf in shapes.items()
        if path.startswith("params/")
    )


def test_features_leave_under_their_names_with_the_papers_sizes():
    model = cnn_flax.create_model("mobilenet_v2")
    assert feature_shapes(model, 1, 224, 224, 3) == {
        "stem": (1, 112, 112, 32),
        "stage1": (1, 112, 112, 16),
        "stage2": (1, 56, 56, 24),
        "stage3": (1, 28, 28, 32),
        "stage4": (1, 14, 14, 64),
        "stage5": (1, 14, 14, 96),
        "stage6": (1, 7, 7, 160),
        "stage7": (1, 7, 7, 320),
        "pre_logits": (1, 1280),
    }


@pytest.mark.slow
def test_any_image_size_is_taken_and_halves_are_rounded_up():
    model = cnn_flax.create_model("mobilenet_v2")
    shapes = feature_shapes(model, 1, 65, 97, 3)
    assert (shapes["stem"][1:3], shapes["stage7"][1:3]) == ((33, 49), (3, 4))
    assert feature_shapes(model, 1, 1, 1, 3)["stage7"] == (1, 1, 1, 320)


def test_receptive_field_grows_by_the_depthwise_kernels():
    # Each 3x3 adds twice the stride of its input; 1x1s add nothing. In stage 3, that is
    # 4 from a stride of 4, then 8 twice.
    sizes = {"stem": 3, "stage1": 7, "stage2": 19, "stage3": 59, "stage4": 171}
    sizes |= {"stage5": 267, "stage6": 427, "stage7": 491}
    fields = cnn_flax.analysis.receptive_fields(
        cnn_flax.create_model("mobilenet_v2"), 224
    )
    assert {name: fields[name].size[0] for name in sizes} == sizes
    assert fields["stage7"].stride == (32, 32)


def test_depth_counts_three_layers_per_block_and_two_without_expansion():
    # Stem, 2, 16 times 3, last 1x1, head.
    assert cnn_flax.model_info("mobilenet_v2").depth == 53


def test_published_weights_are_torchvisions():
    first, second = cnn_flax.model_info("mobilenet_v2").weights
    assert (first.source, first.resize) == ("torchvision IMAGENET1K_V1", 256)
    assert (first.imagenet_top1, first.imagenet_top5) == (71.878, 90.286)
    assert (second.source, second.resize) == ("torchvision IMAGENET1K_V2", 232)
    assert (second.imagenet_top1, second.imagenet_top5) == (72.154, 90.822)


# Small nets: two stages, of one and two blocks.


def small(**fields: Any) -> MobileNetV2:
    return MobileNetV2(
        **{"stage_sizes": (1, 2), "width_multiplier": 0.25, "num_classes": 5, **fields}
    )


@pytest.mark.parametrize(
    ("width_multiplier", "expected"),
    # Multiples of 8 near 8, 4, 6 and 320; near 44.8, 22.4, 33.6 and 1,792.
    [(0.25, (8, 8, 8, 1280)), (1.4, (48, 24, 32, 1792))],
)
def test_all_but_the_last_1x1_become_narrower(width_multiplier, expected):
    shapes = feature_shapes(small(width_multiplier=width_multiplier), 1, 8, 8, 3)
    names = ("stem", "stage1", "stage2", "pre_logits")
    assert tuple(shapes[name][-1] for name in names) == expected


def test_a_block_expands_filters_and_projects():
    params = random_variables(small(), 1, 8, 8, 3)["params"]
    kernels = {
        (block, module): params[block][module]["conv"]["kernel"].shape
        for block in ("stage1_block1", "stage2_block1")
        for module in params[block]
    }
    assert kernels == {
        ("stage1_block1", "depthwise"): (3, 3, 1, 8),
        ("stage1_block1", "project"): (1, 1, 8, 8),
        ("stage2_block1", "expand"): (1, 1, 8, 48),
        ("stage2_block1", "depthwise"): (3, 3, 1, 48),
        ("stage2_block1", "project"): (1, 1, 48, 8),
    }


def test_a_block_has_a_shortcut_where_shapes_do_not_change():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    for features, strides, same in [(8, 1, True), (8, 2, False), (16, 1, False)]:
        block = InvertedResidual(features, strides, expand_ratio=2)
        variables = random_variables(block, 2, 6, 6, 8)
        norm = variables["params"]["project"]["bn"]
        variables["params"]["project"]["bn"] = jax.tree.map(jnp.zeros_like, norm)
        y = jax.jit(block.apply)(variables, x)
        # A dead branch leaves the shortcut, or nothing.
        np.testing.assert_array_equal(y, x if same else jnp.zeros_like(y))


def test_activations_end_at_6_and_bottlenecks_are_linear():
    images = 1e3 * jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    _, features, _ = forward(small(), random_variables(small(), *images.shape), images)
    assert (features["stem"].min(), features["stem"].max()) == (0, 6)
    assert features["stage1"].min() < 0
    assert 0 <= features["pre_logits"].min() <= features["pre_logits"].max() <= 6


def test_padding_is_explicit():
    seen = set()

    def see(next_function, args, kwargs, context):
        if isinstance(context.module, cnn_flax.layers.Conv):
            seen.add((context.module.kernel_size[0], context.module.padding))
        return next_function(*args, **kwargs)

    with nn.intercept_methods(see):
        jax.eval_shape(small().init, jax.random.key(0), jnp.zeros((1, 9, 9, 3)))
    assert seen == {(1, 0), (3, 1)}


@pytest.mark.slow
def test_parameters_begin_as_torchvisions():
    model = small(width_multiplier=2.0, num_classes=50)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    block = params["stage2_block1"]
    # Of 32 channels 192, then 48; torch counts a depthwise kernel's fan out over all
    # channels.
    for module, fan_out in (("expand", 192), ("depthwise", 9 * 192), ("project", 48)):
        kernel = block[module]["conv"]["kernel"]
        assert kernel.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)
    assert params["head"]["kernel"].std() == pytest.approx(0.01, rel=0.02)
    assert not params["head"]["bias"].any()


def test_drop_path_grows_linearly_over_the_blocks():
    model = small(stage_sizes=(2, 3), drop_path_rate=0.5)
    rates = drop_path_rates(model)
    # Block i of 5, from 0 on, has i / 5 of the rate; stage 2's first has no shortcut.
    expected = {"stage1_block1": 0, "stage1_block2": 0.1}
    expected |= {"stage2_block2": 0.3, "stage2_block3": 0.4}
    assert rates == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("field", ["dropout_rate", "drop_path_rate"])
def test_noise_is_on_in_training_alone(field):
    quiet = small(dropout_rate=0.0)
    model = quiet.clone(**{field: 0.5})
    images = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
    variables = random_variables(model, 8, 8, 8, 3)
    first, second = (forward(model, variables, images, True, s)[0] for s in (1, 2))
    assert not jnp.array_equal(first, second)
    np.testing.assert_array_equal(
        forward(model, variables, images)[0], forward(quiet, variables, images)[0]
    )


def test_torchvisions_noise_is_the_default():
    model: Any = cnn_flax.create_model("mobilenet_v2")
    assert (model.dropout_rate, model.drop_path_rate) == (0.2, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small(dropout_rate=1.0), r"dropout_rate must be in \[0, 1\), got 1"),
        (lambda: small(drop_path_rate=-0.1), r"drop_path_rate must be .*, got -0.1"),
        (lambda: small(width_multiplier=0), "width_multiplier must be positive, got 0"),
        (lambda: small(stage_sizes=(1,) * 8), "at most 7 stages, got 8"),
        (
            lambda: small().init(jax.random.key(0), jnp.zeros((8, 8, 3))),
            r"got shape \(8, 8, 3\); a single image is images\[None\]",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Names.


def test_entries_are_torchvisions():
    (dialect,) = dialects("mobilenet_v2")
    paths = (path.partition("/")[2] for path in variable_shapes("mobilenet_v2", {}))
    expected = figures.model_figures("tv_mobilenet_v2")["state_dict"]
    assert {rule_of(dialect, path)[0] for path in paths} == set(expected)


def test_a_state_dict_comes_back_from_a_file(tmp_path):
    shapes = figures.model_figures("tv_mobilenet_v2")["state_dict"]
    state_dict = figures.seeded_state_dict(shapes)
    path = tmp_path / "mobilenet_v2-b0353104.npz"
    np.savez(path, **state_dict)
    _, variables = cnn_flax.load_pretrained("mobilenet_v2", path)
    back = cnn_flax.weights.to_torch("mobilenet_v2", variables)
    assert set(back) == set(state_dict)
    for entry, array in state_dict.items():
        np.testing.assert_array_equal(back[entry], array, err_msg=entry)
