from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnn_flax.layers import BatchNorm
from cnn_flax.layers.batch_norm import batch_norm


def variables(channels):
    keys = jax.random.split(jax.random.key(0), 4)
    scale, bias, mean, var = (jax.random.uniform(key, (channels,)) for key in keys)
    return {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": var},
    }


X = 3 + 2 * jax.random.normal(jax.random.key(1), (4, 5, 6, 3))


@pytest.mark.parametrize("dtype", [None, jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("train", [True, False])
def test_it_equals_flax(train, dtype):
    fields = {"momentum": 0.8, "epsilon": 1e-3, "dtype": dtype}
    ours, flax = BatchNorm(**fields), nn.BatchNorm(**fields)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        *(norm.init(jax.random.key(0), X, not train) for norm in (ours, flax))
    )

    @jax.jit
    def applied(x):
        return [
            norm.apply(variables(3), x, not train, mutable=["batch_stats"])
            for norm in (ours, flax)
        ]

    for x in (X, X.astype(jnp.bfloat16)):
        found, expected = applied(x)
        chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
        # One step of bfloat16, where rounding differs.
        tolerance = 1e-5 if found[0].dtype == jnp.float32 else 1e-2
        chex.assert_trees_all_close(found, expected, rtol=tolerance, atol=tolerance)


def test_statistics_by_hand():
    x = jnp.array([1.0, 2.0, 6.0]).reshape(3, 1, 1, 1)
    norm = BatchNorm(momentum=0.9, epsilon=0.0)
    given = norm.init(jax.random.key(0), x, False)
    y, new = norm.apply(given, x, False, mutable=["batch_stats"])
    # Mean 3, variance (4 + 1 + 9) / 3.
    np.testing.assert_allclose(y.ravel(), np.array([-2, -1, 3]) / (14 / 3) ** 0.5)
    np.testing.assert_allclose(new["batch_stats"]["mean"], [0.3], rtol=1e-6)
    np.testing.assert_allclose(new["batch_stats"]["var"], [0.9 + 14 / 30], rtol=1e-6)


def far_from_zero(mean, deviation):
    """Three channels whose deviations differ, exact in float32."""
    x = np.random.default_rng(0).choice([-1.0, 1.0], (4, 5, 6, 3)) * [1, 2, 4]
    x = mean + deviation * x
    np.testing.assert_array_equal(x, x.astype(np.float32))
    return x


def normalised(x):
    """In float64, by NumPy: the result, the mean, the variance."""
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(var + 1e-5), mean, var


# Mean and deviation; float32 has 24 bits.
FAR = [(4000.5, 0.5), (-30000.0, 0.25), (2.0**20, 1.0), (1e-3, 0.0), (7e4, 0.0)]


@pytest.mark.parametrize(("mean", "deviation"), FAR)
def test_values_far_from_zero_are_normalised(mean, deviation):
    mean = float(np.float32(mean))
    x = far_from_zero(mean, deviation)
    run = jax.jit(partial(batch_norm, epsilon=1e-5))
    found = run(jnp.asarray(x, jnp.float32), jnp.ones(3), jnp.zeros(3))
    # The mean is rounded to its last bit.
    last_bit = abs(mean) * 2**-23 / np.sqrt(deviation**2 + 1e-5)
    for array, expected in zip(found, normalised(x), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=2 * last_bit)


def test_gradients_far_from_zero_are_those_of_float64(float64):
    x = far_from_zero(4000.5, 0.5)
    scale, bias = (variables(3)["params"][name] for name in ("scale", "bias"))
    along = np.random.default_rng(1).standard_normal(x.shape)

    def gradients(dtype):
        def loss(x, scale, bias):
            y, mean, var = batch_norm(x, scale, bias, 1e-5)
            return (jnp.sin(y) * along.astype(dtype)).sum() + mean.sum() + var.sum()

        arguments = (jnp.asarray(a, dtype) for a in (x, scale, bias))
        return jax.jit(jax.grad(loss, (0, 1, 2)))(*arguments)

    # The mean is rounded to its last bit, 2.4e-4, half of which the deviation is 4,000
    # times. The sums are over 120 pixels.
    chex.assert_trees_all_close(
        gradients(jnp.float32), gradients(jnp.float64), rtol=2e-3, atol=2e-3
    )


def test_bfloat16_far_from_zero_is_normalised():
    x = far_from_zero(256.0, 2.0)  # bfloat16 has 8 bits.
    y, *_ = batch_norm(jnp.asarray(x, jnp.bfloat16), jnp.ones(3), jnp.zeros(3), 1e-5)
    np.testing.assert_allclose(y, normalised(x)[0], rtol=1e-4)


def test_parts_with_different_means_are_one_batch():
    x = far_from_zero(4000.5, 0.5)
    x[2:] += 1000  # The second part; each part alone has another mean.
    run = partial(
        batch_norm, scale=jnp.ones(3), bias=jnp.zeros(3), epsilon=1e-5, axis_name="data"
    )
    parts = jnp.asarray(x, jnp.float32).reshape(2, 2, *x.shape[1:])
    y, mean, var = jax.vmap(run, axis_name="data", out_axes=(0, None, None))(parts)
    for found, expected in zip(
        (y.reshape(x.shape), mean, var), normalised(x), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_first_rows_may_differ_from_all_others():
    x = far_from_zero(4000.5, 0.5)
    x[:, 0] = -9000
    found = batch_norm(jnp.asarray(x, jnp.float32), jnp.ones(3), jnp.zeros(3), 1e-5)
    for array, expected in zip(found, normalised(x), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)


def test_vectors_far_from_zero_are_normalised():
    x = far_from_zero(4000.5, 0.5).reshape(-1, 3)
    y, *_ = batch_norm(jnp.asarray(x, jnp.float32), jnp.ones(3), jnp.zeros(3), 1e-5)
    expected = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=5e-4)


def test_running_statistics_far_from_zero():
    x = far_from_zero(4000.5, 0.5)
    norm = BatchNorm(momentum=0.0)
    given = norm.init(jax.random.key(0), x, False)
    _, new = norm.apply(given, jnp.float32(x), False, mutable=["batch_stats"])
    _, mean, var = normalised(x)
    np.testing.assert_allclose(new["batch_stats"]["mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(new["batch_stats"]["var"], var, rtol=1e-5)
    y = norm.apply({**given, **new}, jnp.float32(x), True)
    np.testing.assert_allclose(y, normalised(x)[0], atol=2e-3)


def test_a_batch_over_devices_is_the_whole_batch(float64):
    # As under `jax.pmap`: the loss per part, and the mean of the gradients.
    whole, in_parts = BatchNorm(), BatchNorm(axis_name="data")
    x = X.astype(jnp.float64)

    def gradient(norm, x, average):
        given = variables(3)

        def loss(params, x):
            y, new = norm.apply(
                {**given, "params": params}, x, False, mutable=["batch_stats"]
            )
            return jnp.mean(jnp.sin(y)), new

        own, (dparams, dx) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
            given["params"], x
        )
        return average((own, dparams)), dx

    expected, dx = jax.jit(lambda: gradient(whole, x, lambda tree: tree))()
    parts, dx_parts = jax.jit(
        jax.vmap(
            lambda x: gradient(
                in_parts, x, lambda tree: jax.lax.pmean(tree, axis_name="data")
            ),
            axis_name="data",
            out_axes=(None, 0),
        )
    )(x.reshape(2, 2, *x.shape[1:]))
    chex.assert_trees_all_close(parts, expected, rtol=1e-9)
    # The loss of a part is the mean over its half.
    np.testing.assert_allclose(dx_parts.reshape(x.shape) / 2, dx, rtol=1e-9, atol=1e-12)


def test_statistics_are_as_wide_as_the_parameters_from_the_start(float64):
    for dtype, expected in [
        (jnp.bfloat16, jnp.float32),
        (jnp.float32, jnp.float32),
        (jnp.float64, jnp.float64),
    ]:
        norm = BatchNorm(dtype=dtype, param_dtype=dtype)
        given = norm.init(jax.random.key(0), X, False)
        _, after = norm.apply(given, X, False, mutable=["batch_stats"])
        for statistics in (given["batch_stats"], after["batch_stats"]):
            chex.assert_type(jax.tree.leaves(statistics), expected)


def test_initialization_needs_no_mapped_axis_and_leaves_the_statistics():
    norm = BatchNorm(axis_name="data")
    statistics = norm.init(jax.random.key(0), X, False)["batch_stats"]
    np.testing.assert_array_equal(statistics["mean"], 0)
    np.testing.assert_array_equal(statistics["var"], 1)


def test_a_batch_may_have_more_pixels_than_32_bits_count():
    def loss(x):
        y, _ = BatchNorm().apply(variables(3), x, False, mutable=["batch_stats"])
        return y.mean()

    large = jax.ShapeDtypeStruct((2**12, 2**10, 2**10, 3), jnp.float32)
    assert jax.eval_shape(jax.grad(loss), large).shape == large.shape


def test_evaluation_leaves_the_statistics():
    _, after = BatchNorm().apply(variables(3), X, True, mutable=["batch_stats"])
    chex.assert_trees_all_equal(after["batch_stats"], variables(3)["batch_stats"])


def test_without_a_scale_it_adds_the_bias():
    bias = jnp.array([1.0, 2.0, 3.0])
    y = BatchNorm().apply({"params": {"bias": bias}}, X, True)
    np.testing.assert_array_equal(y, X + bias.reshape(1, 1, 1, 3))
    with pytest.raises(ValueError, match="folded BatchNorm cannot be trained"):
        BatchNorm().apply({"params": {"bias": bias}}, X, False)


def test_fields_that_only_flax_takes_are_refused():
    with pytest.raises(ValueError, match="axis must be -1, got 1; flax.linen"):
        BatchNorm(axis=1)
    with pytest.raises(ValueError, match="mask is not supported"):
        BatchNorm().apply(variables(3), X, True, mask=X > 0)


def test_missing_statistics_are_refused():
    params = variables(3)["params"]
    with pytest.raises(Exception, match="batch_stats"):
        BatchNorm().apply({"params": params}, X, True)
