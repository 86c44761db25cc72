from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from cnn_flax.analysis.multiply_adds import multiply_adds
from cnn_flax.layers import deform_conv2d


def cost(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return multiply_adds(jax.make_jaxpr(function)(*arrays).jaxpr).total()


conv = partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))
IMAGE, KERNEL = (1, 8, 6, 4), (3, 3, 4, 10)


@pytest.mark.parametrize(
    ("function", "kernel", "expected"),
    [
        (partial(conv, window_strides=(1, 1), padding="SAME"), KERNEL, 48 * 360),
        (partial(conv, window_strides=(2, 2), padding="VALID"), KERNEL, 3 * 2 * 360),
        (
            partial(conv, window_strides=(1, 1), padding="VALID", rhs_dilation=(2, 2)),
            KERNEL,
            4 * 2 * 360,
        ),
        (
            partial(conv, window_strides=(1, 1), padding="SAME", feature_group_count=4),
            (3, 3, 1, 8),
            48 * 9 * 8,
        ),
    ],
    ids=["same", "strided", "dilated", "depthwise"],
)
def test_a_convolution_costs_its_kernel_at_each_position(function, kernel, expected):
    assert cost(function, IMAGE, kernel) == expected


def test_a_transposed_convolution_costs_its_kernel_at_each_pixel():
    function = partial(lax.conv_transpose, strides=(2, 2), padding="SAME")
    assert cost(function, IMAGE, KERNEL) == 48 * 360


def test_a_product_costs_the_contracted_axes_at_each_output():
    assert cost(jnp.matmul, (5, 7), (7, 3)) == 5 * 7 * 3
    batched = partial(jnp.einsum, "bhqd,bhkd->bhqk")
    assert cost(batched, (2, 3, 5, 7), (2, 3, 4, 7)) == 2 * 3 * 5 * 4 * 7


def test_other_operations_cost_nothing():
    assert cost(lambda x: jnp.tanh(x * x).sum() + x.max(), (4, 4)) == 0


@pytest.mark.parametrize("groups", [1, 2])
def test_a_deformable_convolution_costs_what_the_plain_one_does(groups):
    function = partial(deform_conv2d, padding=1, feature_groups=groups)
    shapes = (1, 8, 6, 4), (1, 8, 6, 18), (3, 3, 4 // groups, 10)
    assert cost(function, *shapes) == 48 * 9 * 4 // groups * 10


def test_calls_cost_what_is_inside():
    def function(x, w):
        y = jax.jit(jnp.matmul)(x, w)
        y = jax.checkpoint(jnp.matmul)(y, w)
        y, _ = lax.scan(lambda carry, _: (carry @ w, None), y, length=3)
        return y

    assert cost(function, (2, 4), (4, 4)) == 5 * 32


def test_a_platform_dependent_operation_costs_its_default():
    def function(x, w):
        return lax.platform_dependent(
            x, w, cpu=lambda x, w: x @ w @ w, default=lambda x, w: x @ w
        )

    assert cost(function, (2, 4), (4, 4)) == 32


def test_a_product_with_an_unknown_trip_count_is_refused():
    def loop(x, w):
        return lax.while_loop(lambda x: x.sum() > 1, lambda x: x @ w, x)

    def choice(x, w):
        return lax.cond(x.sum() > 1, lambda: x @ w, lambda: x)

    for name, function in (("while", loop), ("cond", choice)):
        with pytest.raises(NotImplementedError, match=f"inside of '{name}'"):
            cost(function, (2, 4), (4, 4))
