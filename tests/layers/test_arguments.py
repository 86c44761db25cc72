import jax.numpy as jnp
import numpy as np
import pytest

from cnn_flax.layers import (
    SqueezeExcite,
    adaptive_avg_pool,
    avg_pool,
    deform_conv2d,
    global_avg_pool,
    local_response_norm,
    max_pool,
)
from cnn_flax.layers.arguments import as_images, whole_number, whole_pair


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), jnp.int32(3)])
def test_a_whole_number_may_be_numpys(value):
    number = whole_number("size", value)
    assert number == 3
    assert type(number) is int


@pytest.mark.parametrize("value", [True, np.True_, 3.0, None, "3", [3], -1, 0])
def test_nothing_else_is_a_whole_number(value):
    with pytest.raises(ValueError, match="size must be (a whole|at least 1)"):
        whole_number("size", value)


@pytest.mark.parametrize("value", [3, (3, 3), [3, 3], np.array([3, 3]), np.int8(3)])
def test_a_pair_is_one_number_or_two(value):
    assert whole_pair("size", value) == (3, 3)


@pytest.mark.parametrize("shape", [(1, 3, 224, 224), (4, 1, 28, 28), (2, 4, 32, 48)])
def test_images_with_their_channels_first_are_refused(shape):
    with pytest.raises(ValueError, match="NHWC.*looks like NCHW"):
        as_images(jnp.zeros(shape), jnp.float32)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 3, 3, 64), (1, 8, 8, 8)])
def test_small_images_and_many_channels_are_accepted(shape):
    assert as_images(jnp.zeros(shape), jnp.float32).shape == shape


X = jnp.zeros((1, 8, 8, 4))
OPERATORS = {
    "max_pool": lambda x: max_pool(x, 2, 2),
    "avg_pool": lambda x: avg_pool(x, 2, 2),
    "global_avg_pool": global_avg_pool,
    "adaptive_avg_pool": lambda x: adaptive_avg_pool(x, (2, 2)),
    "squeeze_excite": lambda x: SqueezeExcite(2).init({}, x),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_operators_take_float_maps(operator):
    with pytest.raises(ValueError, match=r"\[N, H, W, C\], got shape \(8, 8, 4\)"):
        operator(X[0])
    with pytest.raises(TypeError, match="float dtype, got uint8"):
        operator(X.astype(jnp.uint8))


def test_local_response_norm_takes_floats():
    # Integers would be rounded to 0.
    with pytest.raises(TypeError, match="float dtype, got int32"):
        local_response_norm(X.astype(jnp.int32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: max_pool(X, 0, 2), "window must be .* got 0"),
        (lambda: max_pool(X, 2, 2.0), "stride must be .* got 2.0"),
        (lambda: max_pool(X, 2, 2, -1), "padding must be at least 0, got -1"),
        (lambda: max_pool(X, (2, 2), 2), r"window must be .* got \(2, 2\)"),
        (lambda: avg_pool(X, True, 2), "window must be .* got True"),
        (lambda: adaptive_avg_pool(X, (0, 2)), r"size\[0\] must be .* got 0"),
        (lambda: local_response_norm(X, 5.0), "size must be .* got 5.0"),
        (
            lambda: deform_conv2d(
                X, jnp.zeros((1, 6, 6, 18)), jnp.zeros((3, 3, 4, 8)), stride=True
            ),
            "stride is one number .* got True",
        ),
    ],
)
def test_bad_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_operators_take_numpys_numbers():
    two = np.int64(2)
    assert max_pool(X, two, two, np.int32(1)).shape == (1, 5, 5, 4)
    assert avg_pool(X, two, two).shape == (1, 4, 4, 4)
    assert adaptive_avg_pool(X, np.array([2, 3])).shape == (1, 2, 3, 4)
    assert local_response_norm(X, np.int8(5)).shape == X.shape
    offset, weight = jnp.zeros((1, 3, 3, 36)), jnp.zeros((3, 3, 2, 8))
    y = deform_conv2d(
        X, offset, weight, stride=[two, 2], feature_groups=two, offset_groups=two
    )
    assert y.shape == (1, 3, 3, 8)
