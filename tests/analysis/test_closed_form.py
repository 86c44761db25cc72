import pytest

from cnn_flax import single_layer_receptive_field
from cnn_flax.analysis import stack_parameters, stack_receptive_field


@pytest.mark.parametrize(
    ("kernel", "pool", "pixels"), [(3, 1, 3), (3, 2, 4), (11, 3, 13), (1, 5, 5)]
)
def test_one_pooled_layer_sees_pool_plus_kernel_minus_one(kernel, pool, pixels):
    assert single_layer_receptive_field(kernel, pool) == pixels


def test_three_3x3_have_the_field_of_a_7x7_with_fewer_parameters():
    # Simonyan and Zisserman 2014, section 2.3: 27 C^2 against 49 C^2.
    assert stack_receptive_field([3, 3, 3]) == stack_receptive_field([7]) == 7
    assert stack_parameters([3, 3, 3], [64] * 4) == 27 * 64**2
    assert stack_parameters([7], [64, 64], use_bias=True) == 49 * 64**2 + 64


def test_strides_and_dilations_multiply():
    # AlexNet up to pool5.
    kernels = [11, 3, 5, 3, 3, 3, 3, 3]
    assert stack_receptive_field(kernels, [4, 2, 1, 2, 1, 1, 1, 2]) == 195
    assert stack_receptive_field([3, 3, 3], dilations=[1, 2, 4]) == 15


@pytest.mark.parametrize(
    "call",
    [
        lambda: single_layer_receptive_field(0, 2),
        lambda: stack_receptive_field([3, 3], strides=[2]),
        lambda: stack_receptive_field([3, 3], dilations=[1, 0]),
        lambda: stack_parameters([3], [64]),
        lambda: stack_parameters([3], [64, 1.5]),  # type: ignore[list-item]
    ],
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ValueError, match="whole numbers of at least 1"):
        call()
