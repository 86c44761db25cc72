from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

import cnn_flax
from cnn_flax.models.resnet import BasicBlock, ResNet
from cnn_flax.models.senet import (
    LegacyBasicBlock,
    SENetBottleneck,
    legacy_squeeze_excite,
    squeeze_excite,
)
from cnn_flax.weights.dialects import dialects, rule_of
from cnn_flax.weights.layouts import torch_shape
from cnn_flax.weights.variables import variable_shapes
from tests.support import figures
from tests.support.model_checks import check_logits, check_training_pass
from tests.support.small_models import feature_shapes, forward, random_variables


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["seresnet50", "legacy_seresnet50", "legacy_seresnet18"]
)
def test_logits_match_the_reference_in_float32(name):
    check_logits(name, f"timm_{name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("seresnet50", marks=pytest.mark.long),
        pytest.param("legacy_seresnet50", marks=pytest.mark.long),
        "legacy_seresnet18",
    ],
)
def test_a_training_pass_matches_the_reference_in_float64(name, float64, optimized):
    check_training_pass(name, f"timm_{name}")


@pytest.mark.slow
def test_logits_of_senet154_match_the_reference_with_one_block_a_stage():
    # With seeded weights the net loses all digits of float32, in torch too.
    check_logits(
        "legacy_senet154", "timm_legacy_senet154_1111", stage_sizes=(1, 1, 1, 1)
    )


@pytest.mark.slow
def test_entries_of_senet154_are_the_references():
    reference = figures.REFERENCE / "models" / "timm_legacy_senet154.json"
    expected = figures.json.loads(reference.read_text())
    (dialect,) = dialects("legacy_senet154")
    ours = variable_shapes("legacy_senet154", {})
    assert expected["state_dict"] == {
        rule_of(dialect, path.partition("/")[2])[0]: list(torch_shape(path, x.shape))
        for path, x in ours.items()
    }
    parameters = sum(x.size for p, x in ours.items() if p.startswith("params/"))
    assert parameters == expected["parameters"]


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_the_stride_is_where_the_legacy_nets_have_it(depth):
    assert cnn_flax.create_model(f"legacy_seresnet{depth}").stride_in_1x1
    assert not cnn_flax.create_model(f"seresnet{depth}").stride_in_1x1
    if depth < 152:
        name = f"legacy_seresnext{depth}_32x4d"
        assert not cnn_flax.create_model(name).stride_in_1x1


@pytest.mark.parametrize(
    ("channels", "timms", "papers"),
    [(64, 8, 4), (128, 8, 8), (256, 16, 16), (2048, 128, 128)],
)
def test_squeezed_widths(channels, timms, papers):
    assert squeeze_excite(channels, nn.Conv, "a").features == timms
    assert legacy_squeeze_excite(channels, nn.Conv, "a").features == papers


@pytest.mark.slow
def test_the_legacy_pooling_has_no_padding_and_leaves_no_pixel_out():
    for size, plain, legacy in [(64, 16, 16), (65, 17, 16), (63, 16, 16), (62, 16, 15)]:
        shapes = [
            feature_shapes(cnn_flax.create_model(name), 1, size, 32, 3)["stem"]
            for name in ("seresnet18", "legacy_seresnet18")
        ]
        assert [s[1] for s in shapes] == [plain, legacy]


def test_senet154_has_its_widths():
    model = cnn_flax.create_model("legacy_senet154", stage_sizes=(1, 1))
    assert model.dropout_rate == 0.2
    params = variable_shapes("legacy_senet154", {"stage_sizes": (1, 1)})
    shapes = {
        path.removeprefix("params/").removesuffix("/conv/kernel"): x.shape
        for path, x in params.items()
        if path.endswith("conv/kernel")
    }
    assert shapes["conv1/conv1"] == (3, 3, 3, 64)
    assert shapes["conv1/conv3"] == (3, 3, 64, 128)
    assert shapes["stage1_block1/shortcut"] == (1, 1, 128, 256)
    assert shapes["stage2_block1/conv1"] == (1, 1, 256, 256)
    assert shapes["stage2_block1/conv2"] == (3, 3, 4, 512)
    assert shapes["stage2_block1/shortcut"] == (3, 3, 256, 512)


def small(block: type[Any], **fields: Any) -> ResNet:
    sizes = {"stage_sizes": (1, 1), "width": 8, "num_classes": 5}
    return ResNet(block=block, attention=squeeze_excite, **{**sizes, **fields})


def test_attention_ends_the_branch_and_leaves_the_shortcut():
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 16))
    block = BasicBlock(16, attention=squeeze_excite)
    variables = random_variables(block, 2, 4, 4, 16)
    params = variables["params"]
    y = block.apply(variables, x)
    # With such a bias the gates are 0: only the shortcut is left.
    params["attention"]["expand"]["conv"]["bias"] = jnp.full((16,), -1e9)
    np.testing.assert_array_equal(block.apply(variables, x), x)
    assert not jnp.allclose(y, x)


def test_a_legacy_branch_only_adds():
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4, 16))
    for block, adds_only in ((LegacyBasicBlock, True), (BasicBlock, False)):
        block = block(16, attention=squeeze_excite)
        y = block.apply(random_variables(block, 2, 4, 4, 16), x)
        assert bool((y >= x).all()) is adds_only


@pytest.mark.slow
@pytest.mark.parametrize("block", [LegacyBasicBlock, SENetBottleneck])
def test_every_parameter_gets_a_gradient(block):
    groups = 4 if block is SENetBottleneck else 1
    model = small(block, shortcut="projection_3x3", groups=groups, drop_path_rate=0.1)
    images = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    variables = random_variables(model, 4, 16, 16, 3)

    def loss(params):
        logits, *_ = forward(model, {**variables, "params": params}, images, True)
        return cnn_flax.losses.cross_entropy(logits, jnp.arange(4))

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, gradient in traverse_util.flatten_dict(gradients).items():
        assert jnp.abs(gradient).max() > 0, path


def test_weights_are_named_as_timm_names_them():
    def entries(name, path):
        return rule_of(dialects(name)[0], path)[0]

    path = "stage2_block3/attention/expand/conv/bias"
    assert entries("seresnet50", path) == "layer2.2.se.fc2.bias"
    assert entries("legacy_seresnet50", path) == "layer2.2.se_module.fc2.bias"
    assert entries("legacy_seresnet50", "head/kernel") == "last_linear.weight"
    path = "conv1/conv2/bn/scale"
    assert entries("legacy_senet154", path) == "layer0.bn2.weight"
