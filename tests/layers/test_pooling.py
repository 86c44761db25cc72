import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.layers import avg_pool, global_avg_pool, max_pool


def windows(x, window, stride, padding, fill):
    """Every window of `[H, W]`, by a loop, cut at the padded border."""
    x = np.pad(x, padding, constant_values=fill)
    return x, [
        [x[i : i + window, j : j + window] for j in range(0, x.shape[1], stride)]
        for i in range(0, x.shape[0], stride)
    ]


@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_max_pool_is_the_largest_of_each_window(size):
    x = -jax.random.uniform(jax.random.key(0), size)
    y = max_pool(x[None, :, :, None], 3, 2, padding=1)[0, :, :, 0]
    _, parts = windows(np.asarray(x), 3, 2, 1, -np.inf)
    rows, columns = ((n + 2 - 3) // 2 + 1 for n in size)
    expected = [[parts[i][j].max() for j in range(columns)] for i in range(rows)]
    np.testing.assert_array_equal(y, np.array(expected))


@pytest.mark.parametrize("size", [(6, 4), (7, 5), (1, 1)])
def test_avg_pool_is_the_mean_of_what_lies_inside(size):
    x = jax.random.normal(jax.random.key(0), size)
    y = avg_pool(x[None, :, :, None], 2, 2)[0, :, :, 0]
    _, parts = windows(np.asarray(x), 2, 2, 0, 0)
    expected = [[part.mean() for part in row] for row in parts]
    np.testing.assert_allclose(y, np.array(expected), rtol=1e-5)


def test_global_avg_pool_is_in_float32_or_wider():
    x = jnp.full((1, 64, 64, 1), 1.0, jnp.bfloat16).at[0, 0, 0].set(2)
    y = global_avg_pool(x)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, [[1 + 1 / 4096]])


def test_global_avg_pool_keeps_float64(float64):
    assert global_avg_pool(jnp.ones((1, 2, 2, 1), jnp.float64)).dtype == jnp.float64
