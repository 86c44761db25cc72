import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_flax
from cnn_flax.layers import local_response_norm, max_pool
from cnn_flax.models.alexnet import AlexNet
from tests.support import figures
from tests.support.model_checks import check_logits, check_training_pass, relative_norm
from tests.support.small_models import feature_shapes, forward, random_variables


@pytest.mark.slow
def test_logits_match_the_reference_in_float32():
    check_logits("alexnet", "tv_alexnet")


@pytest.mark.slow
def test_a_training_pass_matches_the_reference_in_float64(float64, optimized):
    check_training_pass("alexnet", "tv_alexnet", dropout_rate=0.0)


def test_the_net_of_2012_has_the_papers_number_of_parameters():
    # The abstract says 60 million; this is the count of figure 2.
    assert cnn_flax.model_info("alexnet_lrn").parameters == 60_965_224


FEATURES = (4, 8, 6, 8, 4)


def small(**fields):
    return AlexNet(
        **{"features": FEATURES, "hidden_features": 16, "num_classes": 5, **fields}
    )


def variables_of(model):
    return random_variables(model, 1, 64, 64, 3)


def some_images(size=64):
    return jax.random.normal(jax.random.key(1), (2, size, size, 3))


@pytest.mark.parametrize(
    ("name", "first", "second"), [("alexnet", 64, 192), ("alexnet_lrn", 96, 256)]
)
def test_features_leave_under_their_names_with_the_papers_sizes(name, first, second):
    assert feature_shapes(cnn_flax.create_model(name), 1, 224, 224, 3) == {
        "conv1": (1, 55, 55, first),
        "pool1": (1, 27, 27, first),
        "conv2": (1, 27, 27, second),
        "pool2": (1, 13, 13, second),
        "conv5": (1, 13, 13, 256),
        "pool5": (1, 6, 6, 256),
        "pre_logits": (1, 4096),
    }


@pytest.mark.parametrize(
    ("original", "channels"), [(False, [3, 4, 8, 6, 8]), (True, [3, 2, 8, 3, 4])]
)
def test_the_net_of_2012_has_groups_in_three_convolutions(original, channels):
    params = variables_of(small(original=original))["params"]
    kernels = [params[f"layer{i}"]["conv"]["kernel"] for i in range(1, 6)]
    assert [kernel.shape[2] for kernel in kernels] == channels


@pytest.mark.parametrize("original", [False, True])
def test_the_net_of_2012_normalises_between_convolution_and_pooling(original):
    model = small(original=original)
    _, features, _ = forward(model, variables_of(model), 100 * some_images())
    for i in (1, 2):
        x = features[f"conv{i}"]
        x = local_response_norm(x) if original else x
        np.testing.assert_allclose(features[f"pool{i}"], max_pool(x, 3, 2), rtol=1e-5)


def test_the_net_of_2012_sees_224_px_as_227_px_with_an_empty_border():
    model = small(original=True)
    variables = variables_of(model)
    images = some_images(224)
    bordered = jnp.pad(images, ((0, 0), (0, 3), (0, 3), (0, 0)))
    logits, features, _ = forward(model, variables, images)
    expected, _, _ = forward(model, variables, bordered)
    chex.assert_shape(features["conv1"], (2, 55, 55, 4))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("original", [False, True])
def test_dropout_is_on_in_training_alone(original):
    model = small(original=original)
    variables = variables_of(model)
    images = some_images()
    logits, _, _ = forward(model, variables, images, True, 1)
    assert not jnp.array_equal(logits, forward(model, variables, images, True, 2)[0])
    np.testing.assert_array_equal(logits, forward(model, variables, images, True, 1)[0])
    quiet = small(original=original, dropout_rate=0.0)
    np.testing.assert_allclose(
        forward(model, variables, images)[0],
        forward(quiet, variables, images, True)[0],
        rtol=1e-5,
    )


@pytest.mark.parametrize("original", [False, True])
def test_the_net_of_2012_drops_what_its_last_hidden_layer_gives(original):
    model = small(original=original, dropout_rate=0.5)
    variables = variables_of(model)
    logits, features, _ = forward(model, variables, some_images(), True)
    head = variables["params"]["head"]
    undropped = features["pre_logits"] @ head["kernel"] + head["bias"][None]
    assert np.allclose(logits, undropped, rtol=1e-4) is not original


def test_no_classes_give_what_the_head_would_take():
    model = small(num_classes=0)
    variables = variables_of(model)
    x, features, _ = forward(model, variables, some_images())
    chex.assert_shape(x, (2, 16))
    np.testing.assert_array_equal(x, features["pre_logits"])
    assert "head" not in variables["params"]


@pytest.mark.parametrize("original", [False, True])
def test_bfloat16_computes_in_bfloat16_and_keeps_the_rest_in_float32(original):
    model = small(original=original, dtype=jnp.bfloat16)
    variables = variables_of(model)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, features, _ = forward(model, variables, some_images())
    assert features["pool5"].dtype == jnp.bfloat16
    assert features["pre_logits"].dtype == logits.dtype == jnp.float32
    exact, _, _ = forward(small(original=original), variables, some_images())
    # bfloat16 has 8 bits: 0.4 % per operation, over about ten of them.
    assert relative_norm(logits, exact) < 0.05


def test_a_checkpoint_comes_back_bit_by_bit():
    variables = variables_of(small(original=True, num_classes=3))
    state_dict = cnn_flax.weights.to_torch("alexnet_lrn", variables)
    assert set(state_dict) == set(figures.model_figures("tv_alexnet")["state_dict"])
    fields = {"features": FEATURES, "hidden_features": 16}
    back = cnn_flax.weights.from_torch("alexnet_lrn", state_dict, **fields)
    chex.assert_trees_all_equal(back, variables)


@pytest.mark.parametrize(("original", "smallest"), [(False, 63), (True, 64)])
def test_smaller_images_than_leave_a_pixel_are_refused(original, smallest):
    model = small(original=original)
    shapes = feature_shapes(model, 1, smallest, smallest, 3)
    assert shapes["pool5"] == (1, 1, 1, 4)
    message = rf"at least {smallest} x {smallest} px, got {smallest - 1} x {smallest}"
    with pytest.raises(ValueError, match=message):
        feature_shapes(model, 1, smallest - 1, smallest, 3)


def test_a_bad_dropout_rate_is_refused_at_construction():
    with pytest.raises(ValueError, match=r"dropout_rate must be in \[0, 1\), got 1.0"):
        small(dropout_rate=1.0)
