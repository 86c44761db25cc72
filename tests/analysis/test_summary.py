import json
import math
from typing import Any

import numpy as np
import pytest
from flax import linen as nn

import cnn_flax
from tests.support.figures import REFERENCE

# Figures by reference file; not all have counts.
FIGURES = {
    path.stem: figures
    for path in sorted((REFERENCE / "models").glob("*.json"))
    if "multiply_adds_224" in (figures := json.loads(path.read_text()))
}


# The others cover the blocks of these.
DEEPEST = ("timm_legacy_senet154", "tv_efficientnet_b4", "tv_resnet152")


@pytest.mark.slow
@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(name, marks=pytest.mark.long) if name in DEEPEST else name
        for name in FIGURES
    ],
)
def test_totals_match_the_references(reference):
    _, _, name = reference.partition("_")
    summary = cnn_flax.summary(cnn_flax.create_model(name), 224)
    assert summary.multiply_adds == FIGURES[reference]["multiply_adds_224"]
    assert summary.parameters == FIGURES[reference]["parameters"]


# Counted by hooks on the layers of torchvision 0.29.1 and timm 1.0.31, at unusual
# sizes.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("alexnet", (300, 224), 924_297_344),
        ("googlenet", (193, 224), 1_285_522_432),
        ("resnet101d", (256, 256), 10_501_963_776),
        ("legacy_seresnet34", (224, 224), 3_663_918_592),
        ("tf_efficientnet_b1", (241, 225), 695_474_272),
    ],
)
def test_multiply_adds_match_at_other_sizes(name, size, expected):
    summary = cnn_flax.summary(cnn_flax.create_model(name), size)
    assert summary.multiply_adds == expected


def test_blocks_are_in_the_order_of_their_calls():
    blocks = cnn_flax.summary(cnn_flax.create_model("resnet18")).blocks
    stages = [f"stage{i}_block{j}" for i in (1, 2, 3, 4) for j in (1, 2)]
    assert [block.name for block in blocks] == ["conv1", *stages, "head"]
    # 7x7 from 3 channels to 64 at 112 x 112 px; BatchNorm has 2 parameters per channel.
    assert blocks[0].output_shape == (112, 112, 64)
    assert blocks[0].parameters == 49 * 3 * 64 + 2 * 64
    assert blocks[0].multiply_adds == 49 * 3 * 64 * 112 * 112
    # Two 3x3 at 28 x 28 px, and the shortcut's 1x1.
    assert blocks[3].output_shape == (28, 28, 128)
    assert blocks[3].multiply_adds == 128 * (9 * 64 + 9 * 128 + 64) * 28 * 28
    sizes = [block.receptive_field.size[0] for block in blocks if block.receptive_field]
    assert sizes == [7, 27, 43, 67, 99, 147, 211, 307, 435, math.inf]


@pytest.mark.slow
def test_a_training_only_head_has_parameters_and_no_cost():
    blocks = {
        b.name: b for b in cnn_flax.summary(cnn_flax.create_model("googlenet")).blocks
    }
    assert list(blocks).index("aux1") == list(blocks).index("inception4a") + 1
    assert blocks["aux1"].parameters == 3_188_968
    assert blocks["aux1"].multiply_adds == 0
    assert blocks["aux1"].output_shape is None
    assert blocks["aux1"].receptive_field is None


@pytest.mark.slow
def test_fields_leave_gates_out_if_asked():
    model = cnn_flax.create_model("tf_efficientnet_b0")
    for ignored, size in ((False, math.inf), (True, 7)):
        summary = cnn_flax.summary(model, 64, ignore_global=ignored)
        field = summary.blocks[1].receptive_field
        assert field is not None
        assert field.size == (size, size)


class Plain(nn.Module):
    """A user's net: unnamed and shared modules, its own parameter, `train`."""

    @nn.compact
    def __call__(self, x, train):
        conv = nn.Conv(4, (3, 3))
        x = nn.max_pool(nn.relu(conv(x)), (2, 2), (2, 2))
        x = nn.relu(conv(x)).mean((1, 2))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10)(x) @ self.param("mix", nn.initializers.ones, (10, 2))


def test_any_flax_module_can_be_summarised():
    summary = cnn_flax.summary(Plain(), (8, 12), channels=4, train=False)
    assert summary.image_size == (8, 12)
    rows = [
        (b.name, b.output_shape, b.parameters, b.multiply_adds) for b in summary.blocks
    ]
    assert rows == [
        ("Conv_0", (4, 6, 4), 148, 144 * (8 * 12 + 4 * 6)),
        ("Dense_0", (10,), 50, 40),
        ("Plain", (2,), 20, 20),
    ]
    assert (summary.parameters, summary.multiply_adds) == (218, 17340)


def test_a_module_without_blocks_is_a_single_block():
    (block,) = cnn_flax.summary(nn.Conv(4, (3, 3), padding=0), 8).blocks
    assert (block.name, block.output_shape) == ("Conv", (6, 6, 4))


def test_sizes_may_be_numpys():
    model = cnn_flax.create_model("resnet18", stage_sizes=(1,), width=4)
    expected = cnn_flax.summary(model, 32)
    for size in (np.int64(32), [32, np.int32(32)], np.array([32, 32])):
        assert cnn_flax.summary(model, size, channels=np.int8(3)) == expected
        assert cnn_flax.receptive_field(model, size) == cnn_flax.receptive_field(
            model, 32
        )
        assert cnn_flax.analysis.depth(model, size) == 4


@pytest.mark.parametrize("size", [True, 32.0, None, "32", (32,), -1])
def test_no_other_size_is_taken(size):
    model = cnn_flax.create_model("resnet18", stage_sizes=(1,), width=4)
    for function in (cnn_flax.summary, cnn_flax.analysis.depth):
        with pytest.raises(ValueError, match="image_size must be a positive number"):
            function(model, size)
    with pytest.raises(ValueError, match="channels must be"):
        cnn_flax.summary(model, 32, channels=size)


@pytest.mark.parametrize("model", ["resnet18", nn.Dense])
def test_a_name_or_a_class_is_no_model(model):
    for function in (
        cnn_flax.summary,
        cnn_flax.analysis.depth,
        cnn_flax.analysis.feature_info,
        lambda model: cnn_flax.features(model, {}, None, ["stem"]),
        lambda model: cnn_flax.fold_batch_norm(model, {"params": {}}),
    ):
        with pytest.raises(TypeError, match="model must be a flax.linen.Module, got"):
            function(model)


def test_bad_sizes_are_refused():
    model = nn.Conv(4, (3, 3))
    size: Any
    for size in (0, (224,), (224, -1), 22.4):
        with pytest.raises(ValueError, match="image_size must be a positive number"):
            cnn_flax.summary(model, size)
    with pytest.raises(ValueError, match="channels must be a positive number, got 0"):
        cnn_flax.summary(model, 8, channels=0)
