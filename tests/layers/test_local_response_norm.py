import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.layers import local_response_norm
from tests.support import figures

# torch's values and gradients, NCHW; its alpha is our alpha times the size.
FIGURES = figures.REFERENCE / "ops" / "local_response_norm.npz"
SETTINGS = [
    (5, 1e-4, 0.75, 2.0),
    (5, 1e-4, 0.75, 1.0),
    (3, 0.5, 0.5, 1.0),
    (4, 0.1, 0.75, 1.0),
]


@pytest.mark.parametrize(("size", "alpha", "beta", "k"), SETTINGS)
def test_value_and_gradient_match_the_reference(size, alpha, beta, k):
    def norm(x):
        return local_response_norm(x, size, alpha / size, beta, k)

    setting = f"size{size}_alpha{alpha}_beta{beta}_k{k}"
    with np.load(FIGURES) as reference:
        x, y, gradient = (
            reference[name].transpose(0, 2, 3, 1)
            for name in ("x", f"y_{setting}", f"grad_of_sum_y3_{setting}")
        )
    np.testing.assert_allclose(norm(x), y, rtol=1e-5)
    np.testing.assert_allclose(
        jax.grad(lambda x: (norm(x) ** 3).sum())(jnp.asarray(x)),
        gradient,
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_defaults_are_the_papers_with_alpha_undivided():
    x = jnp.array([10.0, 20, 30, 40])
    sums = np.array([1400, 3000, 3000, 2900])  # Of the squares two to either side.
    np.testing.assert_allclose(
        local_response_norm(x), x / (2 + 1e-4 * sums) ** 0.75, rtol=1e-6
    )


def test_an_even_window_reaches_further_down_than_up():
    x = jnp.array([1.0, 2, 3, 4])
    sums = np.array([5, 14, 30, 29])  # From i - 2 to i + 1.
    np.testing.assert_allclose(
        local_response_norm(x, 4, 1.0, 1.0, 1.0), x / (1 + sums), rtol=1e-6
    )


def test_bfloat16_is_computed_in_float32():
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 9), jnp.bfloat16)
    y = local_response_norm(x, alpha=1.0)
    assert y.dtype == jnp.bfloat16
    exact = local_response_norm(x.astype(jnp.float32), alpha=1.0)
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


def test_float64_is_kept(float64):
    assert local_response_norm(jnp.ones((1, 3), jnp.float64)).dtype == jnp.float64


def test_jit_and_vmap_equal_a_loop():
    x = jax.random.normal(jax.random.key(0), (3, 2, 4, 4, 6))
    loop = jnp.stack([local_response_norm(image) for image in x])
    mapped = jax.jit(jax.vmap(local_response_norm))(x)
    np.testing.assert_allclose(mapped, loop, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be at least 1 channel, got 0"),
        ({"k": 0.0}, "k must be above 0, or zeros are divided by 0; got 0.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        local_response_norm(jnp.ones((1, 3)), **arguments)
