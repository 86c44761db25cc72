import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import cnn_flax
from cnn_flax.models.resnet import BasicBlock, Bottleneck, ResizeMatrix, ResNet
from tests.support.model_checks import check_logits, check_training_pass, relative_norm
from tests.support.small_models import (
    drop_path_rates,
    feature_shapes,
    forward,
    random_variables,
)

# Our name and the reference's.
REFERENCES = [
    ("resnet18", "tv_resnet18"),
    ("resnet34", "tv_resnet34"),
    ("resnet50", "tv_resnet50"),
    ("resnet18d", "timm_resnet18d"),
    ("lab_resnet34", "lab_resnet34"),
    ("resnext50_32x4d", "tv_resnext50_32x4d"),
    ("wide_resnet50_2", "tv_wide_resnet50_2"),
    ("resnet152", "tv_resnet152"),
]
SMALLEST, *LARGER = REFERENCES


def test_logits_of_resnet18_match_the_reference_in_float32():
    check_logits(*SMALLEST)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reference_name"), LARGER)
def test_logits_match_the_reference_in_float32(name, reference_name):
    check_logits(name, reference_name)


# Of each kind of block the smallest net; the logits cover depth and width.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reference_name"),
    [
        (name, reference_name)
        for name, reference_name in REFERENCES
        if name not in ("resnet34", "resnet152", "wide_resnet50_2")
    ],
)
def test_a_training_pass_matches_the_reference_in_float64(
    name, reference_name, float64, request
):
    if "resnext" not in name:  # Grouped convolutions run faster unoptimised.
        request.getfixturevalue("optimized")
    check_training_pass(name, reference_name)


# The parts of the variants, on nets of one or two blocks.

SMALL = {"stage_sizes": (1, 1), "width": 8, "num_classes": 5}


def small(block=BasicBlock, **fields):
    return ResNet(**{**SMALL, "block": block, **fields})


def init(model, shape=(2, 16, 16, 3)):
    return random_variables(model, *shape)


def initial(model, x):
    """The variables that training starts from."""
    return jax.jit(model.init)(jax.random.key(1), x)


def parameter_names(variables):
    return {"/".join(path) for path in traverse_util.flatten_dict(variables["params"])}


def test_features_leave_under_their_names_with_the_papers_sizes():
    shapes = feature_shapes(cnn_flax.create_model("resnet50"), 1, 224, 224, 3)
    assert shapes == {
        "stem": (1, 56, 56, 64),
        "stage1": (1, 56, 56, 256),
        "stage2": (1, 28, 28, 512),
        "stage3": (1, 14, 14, 1024),
        "stage4": (1, 7, 7, 2048),
        "pre_logits": (1, 2048),
    }


def test_small_inputs_keep_their_size_up_to_stage_1():
    model = cnn_flax.create_model("resnet18", small_inputs=True)
    shapes = feature_shapes(model, 1, 32, 32, 3)
    assert shapes["stem"] == (1, 32, 32, 64)
    assert shapes["stage4"] == (1, 4, 4, 512)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_input_channels(channels):
    variables = init(small(), (1, 16, 16, channels))
    assert variables["params"]["conv1"]["conv"]["kernel"].shape == (7, 7, channels, 8)


def test_no_classes_give_the_pooled_features():
    model = small(num_classes=0)
    images = jnp.ones((2, 16, 16, 3))
    variables = init(model)
    pooled, features, _ = forward(model, variables, images)
    chex.assert_shape(pooled, (2, 16))
    np.testing.assert_array_equal(pooled, features["pre_logits"])
    assert "head" not in variables["params"]


@pytest.mark.parametrize(
    ("shortcut", "projected", "added"),
    [
        ("projection", {"stage2_block1"}, set()),
        ("projection_all", {"stage1_block1", "stage2_block1"}, set()),
        ("pool_projection", {"stage2_block1"}, set()),
        ("zero_pad", set(), set()),
        ("matrix", {"stage2_block1"}, {"height", "width"}),
        ("none", set(), set()),
    ],
)
def test_a_shortcut_projects_where_it_says(shortcut, projected, added):
    names = parameter_names(init(small(shortcut=shortcut)))
    assert {n.split("/")[0] for n in names if "shortcut/conv" in n} == projected
    assert {n.split("/")[-1] for n in names if "resize" in n} == added


def shortcut_alone(shortcut, x, features=6):
    """The output of a block with a dead branch: relu(shortcut(x))."""
    block = BasicBlock(features, 2, shortcut=shortcut, zero_init_last_norm=True)
    variables = initial(block, x)
    return jax.jit(block.apply)(variables, x), variables["params"]


def test_zero_pad_takes_every_second_pixel_and_pads_channels_with_zeros():
    x = jax.random.uniform(jax.random.key(0), (1, 5, 4, 4))
    y, _ = shortcut_alone("zero_pad", x)
    np.testing.assert_array_equal(y[..., :4], x[:, ::2, ::2])
    np.testing.assert_array_equal(y[..., 4:], jnp.zeros((1, 3, 2, 2)))


def test_projection_sees_every_second_pixel_and_pool_projection_all_of_them():
    x = jax.random.uniform(jax.random.key(0), (1, 4, 4, 4))
    passed_over = x.at[:, 1::2, :].set(9).at[:, :, 1::2].set(9)
    for shortcut, same in [("projection", True), ("pool_projection", False)]:
        y, _ = shortcut_alone(shortcut, x)
        z, _ = shortcut_alone(shortcut, passed_over)
        assert bool(jnp.array_equal(y, z)) is same


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_matrix_begins_as_average_pooling(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    resize = ResizeMatrix(2)
    y = resize.apply(resize.init(jax.random.key(1), x), x)
    np.testing.assert_allclose(y, cnn_flax.layers.avg_pool(x, 2, 2), atol=1e-6)


def test_a_plain_net_adds_nothing():
    x = jax.random.uniform(jax.random.key(0), (1, 4, 4, 4))
    y, _ = shortcut_alone("none", x)
    np.testing.assert_array_equal(y, jnp.zeros((1, 2, 2, 6)))


def test_the_papers_bottleneck_strides_in_its_first_1x1():
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 8))
    outputs = {}
    for v1 in (False, True):
        block = Bottleneck(4, 2, shortcut="none", stride_in_1x1=v1)
        variables = init(block, x.shape)
        apply = jax.jit(block.apply)
        outputs[v1] = apply(variables, x)
        # Odd pixels reach the output through a strided 3x3, not through a strided 1x1.
        odd = x.at[:, 1::2, :].set(0).at[:, :, 1::2].set(0)
        assert bool(jnp.array_equal(apply(variables, odd), outputs[v1])) is v1
    chex.assert_equal_shape(list(outputs.values()))


def test_zero_init_last_norm_begins_as_the_shortcut():
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 16))
    for block in (BasicBlock(16), Bottleneck(4)):
        block = block.clone(zero_init_last_norm=True)
        y = jax.jit(block.apply)(initial(block, x), x)
        np.testing.assert_array_equal(y, x)


def test_drop_path_grows_linearly_over_the_blocks():
    model = small(stage_sizes=(2, 3), drop_path_rate=0.2)
    rates = drop_path_rates(model, 16)
    np.testing.assert_allclose(list(rates.values()), [0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("field", ["dropout_rate", "drop_path_rate"])
def test_noise_is_on_in_training_alone(field):
    model = small(**{field: 0.5})
    images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = init(model)

    def train(seed):
        return forward(model, variables, images, True, seed)[0]

    assert not jnp.array_equal(train(1), train(2))
    np.testing.assert_array_equal(train(1), train(1))
    np.testing.assert_array_equal(
        forward(model, variables, images)[0], forward(small(), variables, images)[0]
    )


def test_training_changes_the_statistics_and_evaluation_does_not():
    model = small(bn_momentum=0.75)
    images = 3 + jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = init(model)
    _, _, same = forward(model, variables, images)
    chex.assert_trees_all_equal(same, variables["batch_stats"])
    _, _, new = forward(model, variables, images, True)
    kernel = variables["params"]["conv1"]["conv"]["kernel"]
    stem = jax.lax.conv_general_dilated(
        images,
        kernel,
        (2, 2),
        [(3, 3), (3, 3)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    before, after = (
        statistics["conv1"]["bn"]["mean"]
        for statistics in (variables["batch_stats"], new)
    )
    np.testing.assert_allclose(
        after, 0.75 * before + 0.25 * stem.mean((0, 1, 2)), rtol=1e-4
    )


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_bfloat16_computes_in_bfloat16_and_keeps_the_rest_in_float32(block):
    model = small(block, dtype=jnp.bfloat16)
    variables = init(model)
    chex.assert_tree_all_finite(variables)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    logits, features, _ = forward(model, variables, images)
    assert features["stage2"].dtype == jnp.bfloat16
    assert features["pre_logits"].dtype == logits.dtype == jnp.float32
    exact, _, _ = forward(small(block), variables, images)
    # bfloat16 has 8 bits: 0.4 % per operation, over about ten of them.
    assert relative_norm(logits, exact) < 0.05


@pytest.mark.slow
def test_every_parameter_gets_a_gradient():
    model = small(Bottleneck, shortcut="matrix", stem=cnn_flax.models.resnet.DeepStem)
    images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = init(model)

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return cnn_flax.losses.cross_entropy(logits, jnp.arange(4))

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, gradient in traverse_util.flatten_dict(gradients).items():
        assert jnp.abs(gradient).max() > 0, path


@pytest.mark.slow
def test_jit_equals_eager_and_vmap_equals_a_loop():
    model = small()
    variables = init(model)
    images = jax.random.normal(jax.random.key(0), (3, 2, 16, 16, 3))
    eager = jnp.stack([model.apply(variables, x) for x in images])
    jitted = jnp.stack([jax.jit(model.apply)(variables, x) for x in images])
    np.testing.assert_allclose(jitted, eager, atol=1e-5)
    np.testing.assert_allclose(
        jax.vmap(model.apply, (None, 0))(variables, images), eager, atol=1e-5
    )


# Bad arguments.


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (
            np.zeros((16, 16, 3), np.float32),
            ValueError,
            r"\(16, 16, 3\).*images\[None\]",
        ),
        (np.zeros((1, 1, 16, 16, 3), np.float32), ValueError, r"\(1, 1, 16, 16, 3\)"),
        (np.zeros((1, 16, 16, 3), np.uint8), TypeError, "floats.*uint8"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images, error, message):
    with pytest.raises(error, match=message):
        small().init(jax.random.key(0), images)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shortcut": "projektion"}, "no shortcut 'projektion'. Nearest: projection"),
        ({"dropout_rate": 1.0}, r"dropout_rate must be in \[0, 1\), got 1.0"),
        ({"drop_path_rate": -0.1}, r"drop_path_rate must be in \[0, 1\), got -0.1"),
    ],
)
def test_a_bad_field_is_refused_at_construction(fields, message):
    with pytest.raises(ValueError, match=message):
        small(**fields)


def test_a_basic_block_has_no_groups():
    with pytest.raises(ValueError, match="groups=1 and width_per_group=64, got 32"):
        init(small(groups=32, width_per_group=4))
