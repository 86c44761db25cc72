import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_flax
from cnn_flax.models.regnet import RegNet, RegNetBlock, linear_widths
from tests.support.model_checks import check_logits, check_training_pass
from tests.support.small_models import feature_shapes, random_variables


@pytest.mark.slow
def test_logits_match_the_reference_in_float32():
    check_logits("regnet_y_400mf", "tv_regnet_y_400mf")


@pytest.mark.slow
def test_a_training_pass_matches_the_reference_in_float64(float64):
    check_training_pass("regnet_y_400mf", "tv_regnet_y_400mf")


@pytest.mark.parametrize(
    ("name", "widths", "sizes"),
    # w_i and d_i of the paper's RegNetY models.
    [
        ("regnet_y_400mf", (48, 104, 208, 440), (1, 3, 6, 6)),
        ("regnet_y_1_6gf", (48, 120, 336, 888), (2, 6, 17, 2)),
        ("regnet_y_8gf", (224, 448, 896, 2016), (2, 4, 10, 1)),
        ("regnet_y_32gf", (232, 696, 1392, 3712), (2, 5, 12, 1)),
    ],
)
def test_the_linear_rule_gives_the_papers_stages(name, widths, sizes):
    model = cnn_flax.create_model(name)
    assert (model.stage_features, model.stage_sizes) == (widths, sizes)


def test_blocks_of_one_width_are_a_stage():
    # 8 + 8j is 8, 16, 24, 32; the nearest powers of 2 times 8: 8, 16, 32 (of 24, whose
    # logarithm is 1.58), 32.
    assert linear_widths(4, 8, 8, 2, 8) == ((8, 16, 32), (1, 1, 2))


def test_features_halve_from_stage_to_stage():
    shapes = feature_shapes(cnn_flax.create_model("regnet_y_400mf"), 1, 65, 97, 3)
    sizes = {name: shape[1:3] for name, shape in shapes.items() if len(shape) == 4}
    assert sizes == {
        "stem": (33, 49),
        "stage1": (17, 25),
        "stage2": (9, 13),
        "stage3": (5, 7),
        "stage4": (3, 4),
    }


def test_a_block_projects_where_shapes_change():
    for features, strides, projects in [(8, 1, False), (8, 2, True), (16, 1, True)]:
        block = RegNetBlock(features, strides)
        params = random_variables(block, 1, 6, 6, 8)["params"]
        assert ("downsample" in params) == projects
        assert params["conv2"]["conv"]["kernel"].shape == (3, 3, 8, features)
        # A fourth of the block's input.
        assert params["squeeze_excite"]["reduce"]["conv"]["kernel"].shape[-1] == 2


def test_a_dead_branch_leaves_the_inputs_positive_part():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    block = RegNetBlock(8)
    variables = random_variables(block, *x.shape)
    norm = variables["params"]["conv3"]["bn"]
    variables["params"]["conv3"]["bn"] = jax.tree.map(jnp.zeros_like, norm)
    np.testing.assert_array_equal(block.apply(variables, x), jnp.maximum(x, 0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage_sizes": (1, 1)}, "stage_sizes has 2 stages, and stage_features 1"),
        ({"group_width": 5}, "must be multiples of group_width, got 16 and 5"),
    ],
)
def test_bad_arguments_are_refused(fields, message):
    defaults = {"stage_features": (16,), "stage_sizes": (1,), "group_width": 8}
    with pytest.raises(ValueError, match=message):
        RegNet(**{**defaults, **fields})
