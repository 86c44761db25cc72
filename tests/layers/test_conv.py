import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnn_flax.layers import Conv


def pair(x, *args, **kwargs):
    """Our layer, Flax's with the same arguments, and parameters for both."""
    ours, flax = Conv(*args, **kwargs), nn.Conv(*args, **kwargs)
    variables = ours.init(jax.random.key(1), x)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        variables, jax.eval_shape(flax.init, jax.random.key(1), x)
    )
    return ours, flax, variables


CASES = {
    "3x3": dict(features=8, kernel_size=(3, 3), padding=1),
    "3x3 same": dict(features=8, kernel_size=(3, 3), strides=2),
    "3x3 valid": dict(features=8, kernel_size=(3, 3), padding="VALID"),
    "3x5 uneven": dict(features=4, kernel_size=(3, 5), padding=((0, 1), (2, 1))),
    "one padding an axis": dict(features=4, kernel_size=(3, 5), padding=(1, 2)),
    "strides differ": dict(features=4, kernel_size=(3, 3), strides=(1, 2), padding=1),
    "dilated": dict(features=4, kernel_size=(3, 3), kernel_dilation=2, padding=2),
    "grouped": dict(features=8, kernel_size=(3, 3), padding=1, feature_group_count=2),
    "depthwise": dict(features=4, kernel_size=(3, 3), feature_group_count=4),
    "whole": dict(features=8, kernel_size=(7, 6), strides=2, padding=0),
    "whole same": dict(features=8, kernel_size=(7, 6)),
    "1x1": dict(features=8, kernel_size=(1, 1)),
    "1x1 strided": dict(features=8, kernel_size=(1, 1), strides=2),
    "1x1 strided without bias": dict(
        features=8, kernel_size=(1, 1), strides=(2, 1), padding=0, use_bias=False
    ),
    "1x1 padded": dict(features=8, kernel_size=(1, 1), padding=1),
    "1x1 grouped": dict(features=8, kernel_size=(1, 1), feature_group_count=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES.keys())
def test_value_and_gradients_are_those_of_flax(arguments):
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 4))
    ours, flax, variables = pair(x, **arguments)

    def value_and_gradients(model, variables, x):
        output, pull = jax.vjp(model.apply, variables, x)
        return output, pull(jax.random.normal(jax.random.key(2), output.shape))

    (output, gradients), (expected, expected_gradients) = jax.jit(
        lambda *inputs: [value_and_gradients(model, *inputs) for model in (ours, flax)]
    )(variables, x)

    np.testing.assert_allclose(output, expected, atol=1e-5)
    chex.assert_trees_all_close(gradients, expected_gradients, atol=1e-4)


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3)])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, None])
def test_dtypes_are_those_of_flax(kernel_size, dtype):
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    ours, flax, variables = pair(x, 3, kernel_size, dtype=dtype)
    assert ours.apply(variables, x).dtype == flax.apply(variables, x).dtype
    assert variables["params"]["kernel"].dtype == jnp.float32


def test_a_convolution_of_one_pixel_or_the_whole_image_is_a_matrix_product():
    x = jnp.ones((1, 4, 4, 2))
    for kernel_size, primitive in [
        ((1, 1), "dot_general"),
        ((3, 3), "conv_general_dilated"),
        ((4, 4), "dot_general"),
    ]:
        conv = Conv(3, kernel_size, padding=0)
        program = jax.make_jaxpr(conv.apply)(conv.init(jax.random.key(0), x), x)
        assert f"= {primitive}[" in str(program)


def test_kernels_begin_normal_over_the_fan_out():
    kernel = Conv(64, (3, 3)).init(jax.random.key(0), jnp.ones((1, 4, 4, 32)))
    std = kernel["params"]["kernel"].std()
    np.testing.assert_allclose(std, (2 / (9 * 64)) ** 0.5, rtol=0.02)


def test_vmap_equals_a_loop():
    conv = Conv(3, (1, 1), strides=2)
    x = jax.random.normal(jax.random.key(0), (3, 2, 5, 5, 4))
    variables = conv.init(jax.random.key(1), x[0])
    loop = jnp.stack([conv.apply(variables, y) for y in x])
    mapped = jax.jit(jax.vmap(conv.apply, (None, 0)))(variables, x)
    np.testing.assert_allclose(mapped, loop, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "groups", "message"),
    [
        ((4, 4, 2), 1, r"\[N, H, W, C\], got shape \(4, 4, 2\)"),
        ((1, 4, 4, 3), 2, "2 groups must divide the 3 input channels and the 4"),
    ],
)
def test_bad_arguments_are_refused(shape, groups, message):
    with pytest.raises(ValueError, match=message):
        Conv(4, (3, 3), feature_group_count=groups).init(
            jax.random.key(0), jnp.ones(shape)
        )


@pytest.mark.slow
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    ("channels", "features", "groups"),
    [(8, 12, 4), (64, 64, 4), (6, 6, 6), (80, 80, 2)],
    ids=["joined", "blocks", "depthwise", "two wide"],
)
@pytest.mark.parametrize("where", ["x", "kernel", "dy"])
def test_what_is_not_finite_stays_in_its_group(where, channels, features, groups, bad):
    conv = Conv(features, (3, 3), padding=1, feature_group_count=groups, use_bias=False)
    shapes = {
        "x": (2, 4, 5, channels),
        "kernel": (3, 3, channels // groups, features),
        "dy": (2, 4, 5, features),
    }
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal(s, np.float32) for name, s in shapes.items()}
    # The channel is the first one of the second group.
    own = {name: s[-1] // groups for name, s in shapes.items()}

    @jax.jit
    def results(x, kernel, dy):
        y, back = jax.vjp(
            lambda x, kernel: conv.apply({"params": {"kernel": kernel}}, x), x, kernel
        )
        return y, *back(dy)

    expected = results(**arrays)
    # A copy: JAX may still be reading the array that it was given.
    arrays[where] = arrays[where].copy()
    arrays[where][1, 1, ..., own[where]] = bad
    mapped = jax.vmap(results)(*(array[None] for array in arrays.values()))
    for found in (results(**arrays), [array[0] for array in mapped]):
        for name, array, unharmed in zip(
            ("dy", "x", "kernel"), found, expected, strict=True
        ):
            second = np.arange(own[name], 2 * own[name])
            others = np.delete(np.arange(array.shape[-1]), second)
            np.testing.assert_allclose(
                array[..., others], unharmed[..., others], rtol=1e-4, atol=1e-4
            )
        harmed = {"x": (0, 2), "kernel": (0, 1), "dy": (1, 2)}[where]
        for i, name in enumerate(("dy", "x", "kernel")):
            second = found[i][..., own[name] : 2 * own[name]]
            assert np.isfinite(second).all() == (i not in harmed), name
