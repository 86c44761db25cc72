import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from cnn_flax.weights import WeightsError
from cnn_flax.weights.layouts import (
    as_numpy,
    from_torch_layout,
    to_torch_layout,
    torch_shape,
)


def numbered(*shape):
    return np.arange(np.prod(shape)).reshape(shape)


def test_a_convolutions_kernel_goes_from_hwio_to_oihw():
    x = numbered(3, 5, 2, 7)
    y = to_torch_layout("conv/kernel", x)
    assert y.shape == torch_shape("conv/kernel", x.shape) == (7, 2, 3, 5)
    assert y[6, 1, 2, 4] == x[2, 4, 1, 6]


def test_a_dense_kernel_is_transposed():
    x = numbered(3, 2)
    y = to_torch_layout("head/kernel", x)
    assert torch_shape("head/kernel", x.shape) == (2, 3)
    np.testing.assert_array_equal(y, [[0, 2, 4], [1, 3, 5]])


def test_a_dense_kernel_after_a_flattened_map_has_channels_first_in_torch():
    height, width, channels, out = 2, 3, 4, 5
    x = numbered(height * width * channels, out)
    y = to_torch_layout("fc/kernel", x, flattened=(height, width))
    image = np.random.default_rng(0).integers(10, size=(height, width, channels))
    np.testing.assert_array_equal(
        image.reshape(-1) @ x, y @ image.transpose(2, 0, 1).reshape(-1)
    )
    np.testing.assert_array_equal(
        from_torch_layout("fc/kernel", y, flattened=(height, width)), x
    )


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("a/kernel", (3, 5, 2, 7)),
        ("a/kernel", (3, 2)),
        ("a/bias", (4,)),
        ("a/height", (4, 8)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_the_way_there_and_back_changes_no_bit(path, shape, dtype):
    bits = np.random.default_rng(0).bytes(np.prod(shape) * np.dtype(dtype).itemsize)
    x = np.frombuffer(bits, dtype).reshape(shape)
    back = from_torch_layout(path, to_torch_layout(path, x))
    assert back.dtype == x.dtype
    assert back.tobytes() == x.tobytes()


def test_results_are_copies():
    for path, shape in (("a/kernel", (1, 1, 1, 2)), ("a/bias", (2,))):
        x = numbered(*shape)
        for convert in (to_torch_layout, from_torch_layout):
            y = convert(path, x)
            assert y.flags.c_contiguous and y.flags.writeable
            assert not np.shares_memory(x, y)


def test_a_kernel_of_another_rank_is_refused():
    with pytest.raises(WeightsError, match=r"a/kernel' has the shape \[2, 3, 4\]"):
        to_torch_layout("a/kernel", numbered(2, 3, 4))


def test_arrays_come_from_numpy_jax_and_lists():
    for x in (np.array([1, 2], np.float32), jnp.array([1, 2], np.float32), [1.0, 2.0]):
        np.testing.assert_array_equal(as_numpy(x), [1, 2])
    assert as_numpy(jnp.ones(2, jnp.bfloat16)).dtype == ml_dtypes.bfloat16


class LikeATensor:
    """The used part of a torch tensor; numpy cannot convert its bfloat16."""

    def __init__(self, x, dtype):
        self.x, self.dtype = x, dtype

    def detach(self):
        return LikeATensor(self.x, self.dtype)

    cpu = detach

    def float(self):
        return LikeATensor(self.x.astype(np.float32), "torch.float32")

    def numpy(self):
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.x


def test_arrays_come_from_torch_tensors():
    x = np.array([1.5, -2.0], np.float32)
    np.testing.assert_array_equal(as_numpy(LikeATensor(x, "torch.float32")), x)
    y = as_numpy(LikeATensor(x.astype(ml_dtypes.bfloat16), "torch.bfloat16"))
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(y, x)
