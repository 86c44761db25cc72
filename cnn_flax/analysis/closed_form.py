"""Receptive fields and parameters of stacked convolutions, by the textbook's formulas.

They show why three 3x3 convolutions do the work of one 7x7 (Simonyan and Zisserman
2014, "Very deep convolutional networks for large-scale image recognition",
https://arxiv.org/abs/1409.1556, section 2.3): 7 px either way, with 27 C^2 parameters
against 49 C^2. For a model as it is, take `receptive_field`.
"""

from collections.abc import Sequence

__all__ = [
    "single_layer_receptive_field",
    "stack_parameters",
    "stack_receptive_field",
]


def single_layer_receptive_field(kernel: int, pool: int) -> int:
    """Pixels that a pooled position sees through one convolution: pool + kernel - 1.

    Args:
      kernel: size of the convolution's kernel, which has stride 1.
      pool: size of the pooling window over it; 1 for no pooling.

    Returns:
      Pixels along one axis.

    Raises:
      ValueError: if a size is below 1.
    """
    return stack_receptive_field([kernel, pool])


def stack_receptive_field(
    kernels: Sequence[int],
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
) -> int:
    """Pixels that a position sees through layers one upon the other.

    `1 + sum over i of (kernel_i - 1) * dilation_i * product of the strides before i`.

    Args:
      kernels: sizes of the kernels or pooling windows along one axis, first layer
        first.
      strides: of the layers; None: 1.
      dilations: distances between a kernel's taps; None: 1.

    Raises:
      ValueError: if the lengths differ or a number is below 1.
    """
    strides = [1] * len(kernels) if strides is None else strides
    dilations = [1] * len(kernels) if dilations is None else dilations
    for name, values in (
        ("kernels", kernels),
        ("strides", strides),
        ("dilations", dilations),
    ):
        _check(name, values, len(kernels))
    size, step = 1, 1
    for kernel, stride, dilation in zip(kernels, strides, dilations, strict=True):
        size += (kernel - 1) * dilation * step
        step *= stride
    return size


def stack_parameters(
    kernels: Sequence[int], channels: Sequence[int], *, use_bias: bool = False
) -> int:
    """Parameters of square convolutions one upon the other.

    `sum over i of kernel_i ** 2 * channels_i * channels_(i + 1)`, and the biases.

    Args:
      kernels: heights and widths of the kernels, first layer first.
      channels: of the input and of each layer's output: one more than `kernels`.
      use_bias: whether each output channel has a bias.

    Raises:
      ValueError: if the lengths do not fit or a number is below 1.
    """
    _check("kernels", kernels, len(kernels))
    _check("channels", channels, len(kernels) + 1)
    return sum(
        (kernel**2 * inputs + use_bias) * outputs
        for kernel, inputs, outputs in zip(
            kernels, channels[:-1], channels[1:], strict=True
        )
    )


def _check(name, values, length):
    if len(values) != length or not all(
        isinstance(value, int) and value >= 1 for value in values
    ):
        raise ValueError(
            f"{name} must be {length} whole numbers of at least 1, got {values}."
        )
