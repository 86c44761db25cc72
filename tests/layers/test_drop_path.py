import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn_flax.layers import DropPath


def apply(x, rate, seed=0, deterministic=False, collection="drop_path", **fields):
    rngs = {collection: jax.random.key(seed)}
    layer = DropPath(rate, **fields)
    return layer.apply({}, x, deterministic=deterministic, rngs=rngs)


def test_an_image_is_dropped_whole_or_scaled_whole():
    y = apply(jnp.ones((64, 3, 3, 2)), 0.25).reshape(64, -1)
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    np.testing.assert_array_equal(y.min(1), y.max(1))


def test_images_are_dropped_at_the_rate():
    dropped = int((apply(jnp.ones((4000, 1)), 0.3) == 0).sum())
    assert stats.binomtest(dropped, 4000, 0.3).pvalue > 1e-3


def test_nothing_is_dropped_in_evaluation_or_at_rate_0():
    x = jnp.arange(8.0).reshape(8, 1)
    np.testing.assert_array_equal(apply(x, 0.5, deterministic=True), x)
    np.testing.assert_array_equal(apply(x, 0.0), x)


def test_an_images_draw_does_not_depend_on_the_batch_size():
    x = jnp.ones((8, 1))
    np.testing.assert_array_equal(apply(x, 0.5)[:3], apply(x[:3], 0.5))


def test_draws_are_the_same_where_the_batch_is_mapped_over_an_axis():
    x = jnp.ones((16, 1))
    parts = jax.vmap(lambda part: apply(part, 0.5, axis_name="data"), axis_name="data")(
        x.reshape(4, 4, 1)
    )
    np.testing.assert_array_equal(parts.reshape(16, 1), apply(x, 0.5))


def test_the_dropout_key_is_the_fallback():
    x = jnp.ones((64, 1))
    by_seed = [apply(x, 0.5, seed, collection="dropout") for seed in (0, 0, 1)]
    np.testing.assert_array_equal(by_seed[0], by_seed[1])
    assert not jnp.array_equal(by_seed[0], by_seed[2])


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match=rf"in \[0, 1\), got {rate}"):
        apply(jnp.ones((1, 1)), rate)
