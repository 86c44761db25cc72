"""The convolution that every model uses.

Faster formulations of the same operation are chosen behind the one layer: parameters,
shapes and numbers stay the same.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer
from jax import lax

from cnn_flax.layers.cpu.convolution import (
    Geometry,
    dense_conv,
    fit_to_windows,
    has_symbolic_size,
)
from cnn_flax.layers.cpu.depthwise import depthwise_conv
from cnn_flax.layers.cpu.grouped import grouped_conv
from cnn_flax.layers.cpu.matrix_product import full_image_conv, pointwise_conv
from cnn_flax.layers.module import Module, Padding

__all__ = ["Conv", "fan_out_normal"]


def fan_out_normal(
    key: jax.Array, shape: Sequence[int], dtype: Dtype = jnp.float32
) -> jax.Array:
    """An untruncated normal over fan out, torchvision's `kaiming_normal_`.

    He et al. 2015, "Delving deep into rectifiers", section 2.2, backward form.
    """
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return init(key, shape, dtype)


class Conv(Module):
    """2-D convolution, NHWC, with the fields and parameters of `flax.linen.Conv`.

    Parameters are `kernel` `[kh, kw, C / groups, features]` and, with `use_bias`,
    `bias` `[features]`.

    Attributes:
      features: number of output channels.
      kernel_size: (vertical, horizontal), in pixels.
      strides: one number or (vertical, horizontal).
      padding: zeros around the image: one number, one number per axis, or a (low, high)
        pair per axis; "SAME" and "VALID" as in Flax. "SAME" depends on the image's size
        wherever there is a stride.
      kernel_dilation: step between the kernel's taps: one number or one per axis.
      feature_group_count: number of groups of channels that do not see each other.
      use_bias: whether to add a bias.
      dtype: dtype of the computation; None infers it from input and parameters.
      param_dtype: dtype of the parameters.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | tuple[int, int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | tuple[int, int] = 1
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    kernel_init: Initializer = fan_out_normal
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C] -> [N, H', W', features]`.

        Raises:
          ValueError: if `x` is not of rank 4, or the groups do not divide the channels.
        """
        if x.ndim != 4:
            raise ValueError(f"Conv takes [N, H, W, C], got shape {x.shape}.")
        groups = self.feature_group_count
        if x.shape[-1] % groups or self.features % groups:
            raise ValueError(
                f"{groups} groups must divide the {x.shape[-1]} input channels and the "
                f"{self.features} output channels."
            )
        kernel = self.param(
            "kernel",
            self.kernel_init,
            (*self.kernel_size, x.shape[-1] // groups, self.features),
            self.param_dtype,
        )
        bias = None
        if self.use_bias:
            bias = self.param(
                "bias", self.bias_init, (self.features,), self.param_dtype
            )
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        geometry = self._geometry(x.shape[1:3])
        if has_symbolic_size(x):
            reach = self._reach(geometry.dilation)
            x = fit_to_windows(x, 0, geometry.padding, reach, geometry.strides)
            geometry = geometry._replace(padding=[(0, 0), (0, 0)])
        y = _convolve(x, kernel, geometry, groups)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)

    def _geometry(self, size: Sequence[int]) -> Geometry:
        strides, dilation = _pair(self.strides), _pair(self.kernel_dilation)
        padding = self.padding
        if isinstance(padding, str):
            reach = self._reach(dilation)
            padding = lax.padtype_to_pads(size, reach, strides, padding)
        elif isinstance(padding, int):
            padding = (padding, padding)
        padding = [(p, p) if isinstance(p, int) else (p[0], p[1]) for p in padding]
        return Geometry(strides, padding, dilation)

    def _reach(self, dilation: tuple[int, int]) -> list[int]:
        """Pixels from the kernel's first tap to its last, per axis."""
        return [
            (n - 1) * d + 1 for n, d in zip(self.kernel_size, dilation, strict=True)
        ]


def _convolve(x, kernel, geometry, groups):
    """The formulation that is fastest for these shapes."""
    is_unpadded = geometry.padding == [(0, 0), (0, 0)]
    if kernel.shape[:2] == (1, 1) and groups == 1 and is_unpadded:
        return pointwise_conv(x, kernel, geometry.strides)
    if kernel.shape[:3] == x.shape[1:] and is_unpadded and geometry.dilation == (1, 1):
        return full_image_conv(x, kernel)
    if groups == 1:
        return dense_conv(x, kernel, geometry)
    if groups == x.shape[-1] == kernel.shape[-1]:
        return depthwise_conv(x, kernel, geometry)
    return grouped_conv(x, kernel, geometry, groups)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    vertical, horizontal = value
    return (vertical, horizontal)
