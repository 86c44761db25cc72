from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import lax

import cnn_flax
from cnn_flax.analysis import depth
from cnn_flax.layers import SqueezeExcite


# According to the papers' titles and tables, and the nets' names.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet", 8),
        ("alexnet_lrn", 8),
        pytest.param("vgg16_bn", 16, marks=pytest.mark.slow),
        pytest.param("vgg19", 19, marks=pytest.mark.slow),
        pytest.param("resnet34", 34, marks=pytest.mark.slow),
        pytest.param("resnet50", 50, marks=pytest.mark.slow),
        ("legacy_seresnet18", 18),
        pytest.param("resnet18_dcnv2", 18, marks=pytest.mark.slow),
        pytest.param("googlenet", 22, marks=pytest.mark.slow),
        pytest.param("densenet121", 121, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", 50, marks=pytest.mark.slow),
        pytest.param("legacy_senet154", 154, marks=pytest.mark.slow),
        pytest.param("densenet201", 201, marks=pytest.mark.slow),
        pytest.param("resnet152", 152, marks=pytest.mark.slow),
    ],
)
def test_depth_matches_the_paper(name, expected):
    assert cnn_flax.model_info(name).depth == expected


@pytest.mark.slow
def test_an_mbconv_block_counts_three_layers_and_two_without_expansion():
    # Stem, 2, 15 times 3, last 1x1, head.
    assert cnn_flax.model_info("efficientnet_b0").depth == 50


class Net(nn.Module):
    branch: Callable

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        return nn.Dense(10)(self.branch(x).mean((1, 2)))


def test_the_longest_branch_counts():
    def branches(x):
        y = nn.Conv(4, (1, 1))(nn.Conv(8, (3, 3))(x))
        return y + nn.Conv(4, (1, 1))(x)

    assert depth(Net(branches), 8) == 4


def test_a_gate_does_not_count():
    assert depth(Net(lambda x: SqueezeExcite(2)(x)), 8) == 2
    assert depth(Net(lambda x: SqueezeExcite(2)(nn.Conv(4, (3, 3))(x))), 8) == 3


def test_layers_inside_calls_and_loops_count():
    kernel = jnp.ones((4, 4))

    def branch(x):
        x = jax.jit(jnp.matmul)(x, kernel)
        return lax.scan(lambda carry, _: (carry @ kernel, None), x, length=3)[0]

    assert depth(Net(branch), 8) == 6


def test_a_platform_dependent_operation_counts_as_its_default():
    kernel = jnp.ones((4, 4))

    def branch(x):
        return lax.platform_dependent(
            x, cpu=lambda x: x @ kernel @ kernel, default=lambda x: x @ kernel
        )

    assert depth(Net(branch), 8) == 3
