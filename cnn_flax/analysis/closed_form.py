"""Receptive fields and parameters of stacked convolutions, in closed form.

The formulas show why three 3x3 convolutions replace one 7x7 (Simonyan and Zisserman
2014, "Very deep convolutional networks for large-scale image recognition",
https://arxiv.org/abs/1409.1556, section 2.3): both see 7 px, with 27 C^2 parameters
against 49 C^2. For a whole model use `receptive_field`.
"""

from collections.abc import Sequence

from cnn_flax.layers.arguments import whole_numbers

__all__ = [
    "single_layer_receptive_field",
    "stack_parameters",
    "stack_receptive_field",
]


def single_layer_receptive_field(kernel: int, pool: int) -> int:
    """Receptive field of one convolution followed by pooling: pool + kernel - 1.

    Args:
      kernel: size of the convolution's kernel; its stride is 1.
      pool: size of the pooling window; 1 for no pooling.

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
    """Receptive field of stacked layers, in pixels along one axis.

    `1 + sum over i of (kernel_i - 1) * dilation_i * product of the strides before i`.

    Args:
      kernels: sizes of the kernels or pooling windows along one axis, from the first
        layer to the last.
      strides: of the layers; None: all 1.
      dilations: distance between a kernel's taps, per layer; None: all 1.

    Raises:
      ValueError: if the lengths differ or a value is below 1.
    """
    kernels = _checked("kernels", kernels)
    ones = [1] * len(kernels)
    strides = _checked("strides", ones if strides is None else strides, len(kernels))
    dilations = ones if dilations is None else dilations
    dilations = _checked("dilations", dilations, len(kernels))
    size, step = 1, 1
    for kernel, stride, dilation in zip(kernels, strides, dilations, strict=True):
        size += (kernel - 1) * dilation * step
        step *= stride
    return size


def stack_parameters(
    kernels: Sequence[int], channels: Sequence[int], *, use_bias: bool = False
) -> int:
    """Number of parameters of stacked convolutions with square kernels.

    `sum over i of kernel_i ** 2 * channels_i * channels_(i + 1)`, plus the biases.

    Args:
      kernels: sides of the kernels, from the first layer to the last.
      channels: of the input and of each layer's output: one more item than `kernels`.
      use_bias: whether each output channel has a bias.

    Raises:
      ValueError: if the lengths do not match or a value is below 1.
    """
    kernels = _checked("kernels", kernels)
    channels = _checked("channels", channels, len(kernels) + 1)
    return sum(
        (kernel**2 * inputs + use_bias) * outputs
        for kernel, inputs, outputs in zip(
            kernels, channels[:-1], channels[1:], strict=True
        )
    )


def _checked(name, values, length=None):
    try:
        numbers = whole_numbers(name, values)
    except ValueError:
        numbers = None
    if numbers is None or length not in (None, len(numbers)):
        count = "" if length is None else f"{length} "
        raise ValueError(
            f"{name} must be {count}whole numbers of at least 1, got {values}."
        )
    return numbers
