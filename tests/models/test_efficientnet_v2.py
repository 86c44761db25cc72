import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_flax
from cnn_flax.models.efficientnet_v2 import EfficientNetV2, FusedMBConv
from tests.support.model_checks import check_logits, check_training_pass
from tests.support.small_models import feature_shapes, random_variables


@pytest.mark.slow
def test_logits_match_the_reference_in_float32():
    check_logits("efficientnet_v2_s", "tv_efficientnet_v2_s")


@pytest.mark.slow
def test_a_training_pass_matches_the_reference_in_float64(float64):
    check_training_pass(
        "efficientnet_v2_s",
        "tv_efficientnet_v2_s",
        dropout_rate=0.0,
        drop_path_rate=0.0,
    )


def test_features_have_the_channels_of_table_4():
    shapes = feature_shapes(cnn_flax.create_model("efficientnet_v2_s"), 1, 64, 64, 3)
    assert {name: shape[1:] for name, shape in shapes.items()} == {
        "stem": (32, 32, 24),
        "stage1": (32, 32, 24),
        "stage2": (16, 16, 48),
        "stage3": (8, 8, 64),
        "stage4": (4, 4, 128),
        "stage5": (4, 4, 160),
        "stage6": (2, 2, 256),
        "pre_logits": (1280,),
    }


@pytest.mark.parametrize(
    ("expand_ratio", "kernels"),
    [
        (1, {"fused": (3, 3, 8, 8)}),
        (4, {"fused": (3, 3, 8, 32), "project": (1, 1, 32, 8)}),
    ],
)
def test_a_fused_block_expands_by_its_full_convolution(expand_ratio, kernels):
    block = FusedMBConv(8, 3, expand_ratio=expand_ratio)
    params = random_variables(block, 1, 6, 6, 8)["params"]
    found = {name: module["conv"]["kernel"].shape for name, module in params.items()}
    assert found == kernels


def test_a_fused_block_has_a_shortcut_where_shapes_do_not_change():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    for features, strides, same in [(8, 1, True), (8, 2, False), (16, 1, False)]:
        block = FusedMBConv(features, 3, strides)
        variables = random_variables(block, *x.shape)
        norm = variables["params"]["project"]["bn"]
        variables["params"]["project"]["bn"] = jax.tree.map(jnp.zeros_like, norm)
        y = block.apply(variables, x)
        # A dead branch leaves the shortcut, or nothing.
        np.testing.assert_array_equal(y, x if same else jnp.zeros_like(y))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fused_stages": ()}, "fused_stages must have a stage, got none"),
        ({"stages": ((8, 1, 3),)}, r"A stage is \(features, blocks, .*got \(8, 1, 3\)"),
        ({"drop_path_rate": 1}, r"drop_path_rate must be in \[0, 1\), got 1"),
    ],
)
def test_bad_arguments_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetV2(**fields)
