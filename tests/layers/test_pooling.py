import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.layers import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool


def windows(x, window, stride, padding, fill):
    """Every window of `[H, W]`, in a loop, cut at the padded border."""
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


# Rows and columns by torch's formula, ceil((size - window) / stride) + 1; the last
# case is a window larger than the map, which torch refuses.
@pytest.mark.parametrize(
    ("size", "window", "expected"),
    [
        ((7, 8), 3, (3, 4)),
        ((6, 5), 3, (3, 2)),
        ((7, 8), 2, (4, 4)),
        ((3, 2), 3, (1, 1)),
        ((1, 1), 3, (1, 1)),
    ],
)
def test_max_pool_in_ceil_mode_leaves_no_pixel_out(size, window, expected):
    x = -jax.random.uniform(jax.random.key(0), size)
    y = max_pool(x[None, :, :, None], window, 2, ceil_mode=True)[0, :, :, 0]
    _, parts = windows(np.asarray(x), window, 2, 0, 0)
    rows, columns = expected
    expected = [[parts[i][j].max() for j in range(columns)] for i in range(rows)]
    np.testing.assert_array_equal(y, np.array(expected))
    assert y.shape == (rows, columns)


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "ceil_mode"),
    [
        ((6, 7), 3, 2, 1, False),
        ((6, 7), 3, 2, 0, True),
        ((6, 7), 2, 2, 0, False),
        ((6, 7), 3, 1, 1, False),
        ((5, 8), 2, 3, 0, False),
    ],
)
def test_max_pool_sends_the_gradient_to_the_first_maximum_of_each_window(
    size, window, stride, padding, ceil_mode
):
    # Few distinct values, so that windows have several maxima.
    x = jax.random.randint(jax.random.key(0), size, 0, 3).astype(float)

    def pool(x):
        y = max_pool(x[None, ..., None], window, stride, padding, ceil_mode=ceil_mode)
        return y[0, ..., 0]

    y, vjp = jax.vjp(pool, x)
    dy = jax.random.normal(jax.random.key(1), y.shape)
    padded = np.pad(x, ((padding, padding + window),) * 2, constant_values=-np.inf)
    expected = np.zeros_like(padded)
    for row, column in np.ndindex(y.shape):
        top, left = row * stride, column * stride
        part = padded[top : top + window, left : left + window]
        first = np.unravel_index(part.argmax(), part.shape)
        expected[top + first[0], left + first[1]] += dy[row, column]
    inside = expected[padding : padding + size[0], padding : padding + size[1]]
    np.testing.assert_allclose(vjp(dy)[0], inside, rtol=1e-6, atol=1e-6)


def test_padding_and_ceil_mode_go_together():
    x = -jnp.arange(1.0, 7).reshape(1, 6, 1, 1)
    y = max_pool(x, 3, 2, padding=1, ceil_mode=True)
    np.testing.assert_array_equal(y[0, :, 0, 0], [-1, -2, -4, -6])


@pytest.mark.parametrize("size", [(6, 4), (7, 5), (1, 1)])
def test_avg_pool_is_the_mean_of_the_pixels_inside(size):
    x = jax.random.normal(jax.random.key(0), size)
    y = avg_pool(x[None, :, :, None], 2, 2)[0, :, :, 0]
    _, parts = windows(np.asarray(x), 2, 2, 0, 0)
    expected = [[part.mean() for part in row] for row in parts]
    np.testing.assert_allclose(y, np.array(expected), rtol=1e-5)


def test_avg_pool_of_less_than_a_window_is_the_mean_of_all():
    x = jax.random.normal(jax.random.key(0), (1, 2, 4, 3))
    np.testing.assert_allclose(avg_pool(x, 5, 3), x.mean((1, 2), keepdims=True))


@pytest.mark.parametrize("size", [(14, 7), (9, 3), (4, 1), (6, 8)])
def test_adaptive_avg_pool_is_the_mean_of_windows_that_overlap(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    y = adaptive_avg_pool(x, (4, 7))
    edges = [
        [(math.floor(i * n / m), math.ceil((i + 1) * n / m)) for i in range(m)]
        for n, m in zip(size, (4, 7), strict=True)
    ]
    expected = [
        [x[:, top:bottom, left:right].mean((1, 2)) for left, right in edges[1]]
        for top, bottom in edges[0]
    ]
    np.testing.assert_allclose(
        y, np.array(expected).transpose(2, 0, 1, 3), rtol=1e-5, atol=1e-6
    )


def test_adaptive_avg_pool_to_the_same_size_changes_nothing():
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    np.testing.assert_array_equal(adaptive_avg_pool(x, (7, 6)), x)


def test_adaptive_avg_pool_is_in_float32_or_wider():
    x = jnp.full((1, 64, 64, 1), 1.0, jnp.bfloat16).at[0, 0, 0].set(2)
    y = adaptive_avg_pool(x, (1, 1))
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y[:, 0, 0], [[1 + 1 / 4096]])


def test_global_avg_pool_is_in_float32_or_wider():
    x = jnp.full((1, 64, 64, 1), 1.0, jnp.bfloat16).at[0, 0, 0].set(2)
    y = global_avg_pool(x)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, [[1 + 1 / 4096]])


def test_global_avg_pool_keeps_float64(float64):
    assert global_avg_pool(jnp.ones((1, 2, 2, 1), jnp.float64)).dtype == jnp.float64
