import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_flax
from cnn_flax.models.shufflenet_v2 import ShuffleNetV2, ShuffleUnit, channel_shuffle
from tests.support.model_checks import check_logits, check_training_pass
from tests.support.small_models import feature_shapes, random_variables


@pytest.mark.slow
def test_logits_match_the_reference_in_float32():
    check_logits("shufflenet_v2_x1_0", "tv_shufflenet_v2_x1_0")


@pytest.mark.slow
def test_a_training_pass_matches_the_reference_in_float64(float64):
    check_training_pass("shufflenet_v2_x1_0", "tv_shufflenet_v2_x1_0")


def test_features_have_the_sizes_of_table_5():
    shapes = feature_shapes(cnn_flax.create_model("shufflenet_v2_x1_0"), 1, 224, 224, 3)
    assert shapes == {
        "stem": (1, 56, 56, 24),
        "stage1": (1, 28, 28, 116),
        "stage2": (1, 14, 14, 232),
        "stage3": (1, 7, 7, 464),
        "pre_logits": (1, 1024),
    }


def test_a_shuffle_takes_turns():
    first, second = jnp.array([[1, 2, 3]]), jnp.array([[10, 20, 30]])
    np.testing.assert_array_equal(
        channel_shuffle(first, second), [[1, 10, 2, 20, 3, 30]]
    )


def test_half_of_the_channels_pass_a_unit_unchanged():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    unit = ShuffleUnit(8)
    y = unit.apply(random_variables(unit, *x.shape), x)
    np.testing.assert_array_equal(y[..., ::2], x[..., :4])
    assert not np.array_equal(y[..., 1::2], x[..., 4:])


def test_a_strided_unit_has_a_shortcut_of_its_own():
    unit = ShuffleUnit(8, strides=2)
    params = random_variables(unit, 1, 5, 7, 6)["params"]
    kernels = {name: module["conv"]["kernel"].shape for name, module in params.items()}
    assert kernels == {
        "shortcut_depthwise": (3, 3, 1, 6),
        "shortcut": (1, 1, 6, 4),
        "conv1": (1, 1, 6, 4),
        "depthwise": (3, 3, 1, 4),
        "conv2": (1, 1, 4, 4),
    }
    images = jax.ShapeDtypeStruct((1, 5, 7, 6), jnp.float32)
    shape = jax.eval_shape(unit.init_with_output, jax.random.key(0), images)[0].shape
    assert shape == (1, 3, 4, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage_features": (15,)}, r"stage_features must be even, got \(15,\)"),
        ({"stage_sizes": (1,) * 4}, "has 4 stages, and stage_features .* of 3"),
    ],
)
def test_bad_arguments_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ShuffleNetV2(**{"stage_sizes": (1,), **fields})
