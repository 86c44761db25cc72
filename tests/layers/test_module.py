import copy
import multiprocessing
import pickle
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import cnn_flax
from cnn_flax import layers
from cnn_flax.layers.module import Module
from cnn_flax.models import densenet, efficientnet, googlenet, mobilenet, resnet, senet

# Two of each, built apart.
LAYERS = {
    "batch norm": lambda: layers.BatchNorm(momentum=0.5),
    "conv": lambda: layers.Conv(8, (3, 3)),
    "conv block": lambda: layers.ConvBlock(8, 3),
    "conv block of partials": lambda: layers.ConvBlock(
        8,
        3,
        activation=partial(nn.leaky_relu, negative_slope=0.1),
        conv=partial(layers.Conv, use_bias=False),
    ),
    "deform conv": lambda: layers.DeformConv(8, (3, 3)),
    "drop path": lambda: layers.DropPath(0.1),
    "squeeze excite": lambda: layers.SqueezeExcite(
        8, nn.silu, partial(layers.ConvBlock, activation=nn.relu6)
    ),
    "basic block": lambda: resnet.BasicBlock(8),
    "bottleneck": lambda: resnet.Bottleneck(8, attention=senet.squeeze_excite),
    "deep stem": lambda: resnet.DeepStem(8),
    "SENet bottleneck": lambda: senet.SENetBottleneck(8),
    "MBConv": lambda: efficientnet.MBConv(8, 3),
    "inverted residual": lambda: mobilenet.InvertedResidual(8),
    "inception": lambda: googlenet.Inception((1, 2, 3, 4, 5, 6)),
    "auxiliary head": lambda: googlenet.AuxiliaryHead(5),
    "dense layer": lambda: densenet.DenseLayer(
        8, conv=partial(layers.Conv, use_bias=False)
    ),
    "net with functions": lambda: cnn_flax.create_model(
        "efficientnet_b0", activation=jnp.tanh, stages=[[16, 1, 3, 1, 1]]
    ),
    "net with a partial": lambda: cnn_flax.create_model(
        "resnet18", stem_pool=partial(layers.max_pool, window=2, stride=2)
    ),
}


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_a_layer_survives_pickle_and_copies(build):
    layer = build()
    for survivor in (
        build(),
        copy.copy(layer),
        copy.deepcopy(layer),
        layer.clone(),
        *[pickle.loads(pickle.dumps(layer, protocol)) for protocol in range(2, 6)],
    ):
        assert type(survivor) is type(layer)
        assert survivor == layer
        assert hash(survivor) == hash(layer)


def test_a_layer_with_another_field_is_unequal():
    build = partial(layers.ConvBlock, 8, 3)
    slopes = [partial(nn.leaky_relu, negative_slope=slope) for slope in (0.1, 0.2)]
    assert build(activation=slopes[0]) != build(activation=slopes[1])
    assert build(activation=slopes[0]) != build(activation=nn.leaky_relu)
    assert build(activation=nn.silu) != build(activation=nn.relu)


def test_functions_come_back_as_the_same_objects():
    layer = layers.ConvBlock(8, 3, activation=nn.silu)
    assert pickle.loads(pickle.dumps(layer)).activation is nn.silu


@pytest.mark.slow
def test_models_travel_to_a_new_process_and_back():
    names = ["efficientnet_b0", "legacy_seresnet18", "googlenet", "resnet18_dcn"]
    nets = [cnn_flax.create_model(name, num_classes=3) for name in names]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(copy.copy, nets) == nets


def test_every_network_and_block_is_one():
    found = [
        value
        for path, module in sys.modules.items()
        if path.startswith(("cnn_flax.layers", "cnn_flax.models"))
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, nn.Module)
    ]
    assert len(found) > 20
    for kind in set(found) - {nn.Module}:
        assert issubclass(kind, Module | nn.BatchNorm), kind


def test_numpys_numbers_and_sequences_become_pythons():
    conv: Any = layers.Conv(
        np.int64(8),
        np.array([3, 3]),
        strides=np.int32(2),
        padding=[[1, 1], (np.int64(0), 2)],
        kernel_dilation=[1, 1],
        use_bias=np.bool_(False),
    )
    assert conv == layers.Conv(
        8,
        (3, 3),
        strides=2,
        padding=((1, 1), (0, 2)),
        kernel_dilation=(1, 1),
        use_bias=False,
    )
    assert type(conv.features) is type(conv.strides) is int
    hash(conv)
    x = jnp.ones((1, 8, 8, 3))
    y, _ = jax.eval_shape(conv.init_with_output, jax.random.key(0), x)
    assert y.shape == (1, 4, 4, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": 8.0}, "features must be a whole number, got 8.0"),
        ({"features": True}, "features must be a whole number, got True"),
        ({"features": None}, "features must be a whole number, got None"),
        ({"features": "8"}, "features must be a whole number, got '8'"),
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"kernel_size": 3}, r"kernel_size must be \(vertical, horizontal\), got 3"),
        ({"kernel_size": (3,)}, r"kernel_size must .* \(vertical, horizontal\)"),
        ({"kernel_size": (3, 0)}, r"kernel_size\[1\] must be at least 1, got 0"),
        ({"strides": -1}, "strides must be at least 1, got -1"),
        ({"strides": 2.0}, "strides must be a whole number, got 2.0"),
        ({"kernel_dilation": 0}, "kernel_dilation must be at least 1, got 0"),
        ({"feature_group_count": 0}, "feature_group_count must .* at least 1, got 0"),
        ({"padding": "circular"}, "padding must be one of SAME, VALID.* 'circular'"),
        ({"padding": 1.0}, "padding must be a whole number, got 1.0"),
        ({"padding": (1, 2, 3)}, r"padding must be .* got \(1, 2, 3\)"),
        ({"use_bias": None}, "use_bias must be True or False, got None"),
        ({"dtype": int}, "dtype must be a float dtype"),
        ({"kernel_init": None}, "kernel_init must be a function or a class, got None"),
    ],
)
def test_bad_fields_are_refused_by_name(fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        layers.Conv(**{"features": 8, "kernel_size": (3, 3), **fields})


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("resnet18", {"num_classes": None}, "num_classes must be a whole .* got None"),
        ("resnet18", {"num_classes": -1}, "num_classes must .* at least 0, got -1"),
        ("googlenet", {"num_classes": 2.0}, "num_classes must .* got 2.0"),
        ("vgg11", {"num_classes": "10"}, "num_classes must .* got '10'"),
        ("resnet18", {"stage_sizes": 2}, "stage_sizes must be a sequence .* got 2"),
        ("resnet18", {"stage_sizes": (2, 0)}, r"stage_sizes\[1\] must .* got 0"),
        ("resnet18", {"width": 0}, "width must be at least 1, got 0"),
        ("resnet18", {"dropout_rate": None}, "dropout_rate must be a number, got None"),
        ("resnet18", {"dropout_rate": True}, "dropout_rate must be a number, got True"),
        (
            "resnet18",
            {"dropout_rate": float("nan")},
            "dropout_rate must be .*, got nan",
        ),
        ("resnet18", {"block": "basic"}, "block must be a function or a class"),
        ("resnet18", {"shortcut": 3}, "shortcut must be a string, got 3"),
        ("resnet18", {"small_inputs": "no"}, "small_inputs must be True or False"),
        ("resnet18_dcn", {"deform_stages": 2}, "deform_stages must be a sequence"),
        ("alexnet", {"features": (8, 8)}, r"features must be of five .* got \(8, 8\)"),
        ("densenet121", {"growth_rate": 0}, "growth_rate must be .* got 0"),
        (
            "mobilenet_v2",
            {"width_multiplier": "a"},
            "width_multiplier must be a number",
        ),
        ("efficientnet_b0", {"stages": [[16, 1]]}, r"A stage is .* got \(16, 1\)"),
        ("efficientnet_b0", {"se_ratio": -1}, "se_ratio must be .* got -1"),
        ("efficientnet_b0", {"dtype": None}, "dtype must be a float dtype"),
    ],
)
def test_bad_fields_of_a_net_are_refused_by_name(name, fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        cnn_flax.create_model(name, **fields)


@pytest.mark.parametrize("fields", [{"momentum": 1.5}, {"epsilon": -1.0}])
def test_a_norms_numbers_are_in_range(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))} must be in"):
        layers.BatchNorm(**fields)
    with pytest.raises(TypeError, match="must be a number, got None"):
        layers.BatchNorm(**dict.fromkeys(fields))
