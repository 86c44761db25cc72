import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnn_flax.layers import SqueezeExcite


def init(layer, x):
    return layer.init(jax.random.key(1), x)


def test_channels_are_weighted_by_two_layers_on_their_means():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    layer = SqueezeExcite(2)
    variables = init(layer, x)
    # Nonzero biases; in numpy, which broadcasts vectors over matrices.
    p = jax.tree.map(lambda a: np.asarray(a) + 0.1, variables)
    reduce, expand = (p["params"][k]["conv"] for k in ("reduce", "expand"))
    s = np.asarray(x).mean((1, 2)) @ reduce["kernel"][0, 0] + reduce["bias"]
    s = np.maximum(s, 0) @ expand["kernel"][0, 0] + expand["bias"]
    weights = 1 / (1 + np.exp(-s))
    y = layer.apply(p, x)
    np.testing.assert_allclose(y, x * weights[:, None, None, :], rtol=1e-5, atol=1e-6)


def test_shapes_of_the_parameters():
    shapes = jax.tree.map(jnp.shape, init(SqueezeExcite(2), jnp.ones((1, 3, 3, 6))))
    assert shapes["params"] == {
        "reduce": {"conv": {"kernel": (1, 1, 6, 2), "bias": (2,)}},
        "expand": {"conv": {"kernel": (1, 1, 2, 6), "bias": (6,)}},
    }


def test_images_of_a_batch_do_not_see_each_other():
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 6))
    layer = SqueezeExcite(2)
    variables = init(layer, x)
    np.testing.assert_allclose(
        layer.apply(variables, x)[1:], layer.apply(variables, x[1:]), rtol=1e-6
    )


@pytest.mark.parametrize("activation", [nn.silu, nn.relu])
def test_the_activation_is_between_the_layers(activation):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
    layer = SqueezeExcite(3, activation=activation)
    variables = init(layer, x)
    calls = []
    layer = layer.clone(activation=lambda s: calls.append(s.shape) or activation(s))
    layer.apply(variables, x)
    assert calls == [(2, 1, 1, 3)]


def test_bfloat16_stays_and_its_mean_is_taken_in_float32():
    # 4,096 ones: added one by one in bfloat16, the sum stops at 256.
    x = jnp.ones((1, 64, 64, 2), jnp.bfloat16)
    layer = SqueezeExcite(1)
    variables = init(layer, x.astype(jnp.float32))
    y = layer.apply(variables, x)
    exact = layer.apply(variables, x.astype(jnp.float32))
    chex.assert_type(y, exact.dtype)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=0.02)
