import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.layers import ConvBlock


def test_it_is_convolution_then_norm_then_activation():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    block = ConvBlock(4, 3)
    variables = block.init(jax.random.key(1), x)
    statistics = {"mean": jnp.arange(4.0), "var": jnp.arange(1.0, 5.0)}
    variables = {**variables, "batch_stats": {"bn": statistics}}
    y = jax.lax.conv_general_dilated(
        x,
        variables["params"]["conv"]["kernel"],
        (1, 1),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = (y - jnp.arange(4.0).reshape(1, 1, 1, 4)) / jnp.sqrt(
        jnp.arange(1.0, 5.0).reshape(1, 1, 1, 4) + 1e-5
    )
    np.testing.assert_allclose(block.apply(variables, x), jnp.maximum(y, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, {"conv": {"kernel"}, "bn": {"scale", "bias"}}),
        ({"norm": None}, {"conv": {"kernel", "bias"}}),
        ({"use_bias": True}, {"conv": {"kernel", "bias"}, "bn": {"scale", "bias"}}),
    ],
)
def test_there_is_a_bias_only_without_a_norm(fields, names):
    x = jnp.ones((1, 4, 4, 3))
    params = ConvBlock(4, 3, **fields).init(jax.random.key(0), x)["params"]
    assert {k: set(v) for k, v in params.items()} == names


def test_without_activation_values_stay_negative():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
    for activation, lowest_is_negative in [(None, True), (jax.nn.relu, False)]:
        block = ConvBlock(4, 1, activation=activation)
        y = block.apply(block.init(jax.random.key(1), x), x)
        assert bool(y.min() < 0) is lowest_is_negative


@pytest.mark.parametrize(("strides", "size"), [(1, 7), (2, 4)])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_size_is_divided_by_the_strides_and_rounded_up(kernel_size, strides, size):
    block = ConvBlock(4, kernel_size, strides)
    y, _ = block.init_with_output(jax.random.key(0), jnp.ones((1, 7, 7, 3)))
    assert y.shape == (1, size, size, 4)
