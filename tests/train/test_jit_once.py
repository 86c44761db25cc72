"""Programs that run once are compiled with other options, and give the same."""

import jax
import jax.numpy as jnp
import numpy as np

from train.jit_once import jit_once


def test_initial_weights_are_the_same_to_rounding(optimized):
    def init(key):
        weights = jax.nn.initializers.truncated_normal(0.1)(key, (129,), jnp.float32)
        return weights, jax.random.normal(key, (129,))

    key = jax.random.key(0)
    quick = jit_once(init)
    for found, expected in zip(quick(key), jax.jit(init)(key), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_other_options_of_jit_hold():
    assert jit_once(lambda x, n: x * n, static_argnums=1)(2.0, 3) == 6
