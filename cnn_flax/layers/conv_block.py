"""Convolution, normalisation and activation, the block that later papers build on.

Ioffe and Szegedy 2015, "Batch normalization", https://arxiv.org/abs/1502.03167.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from cnn_flax.layers.batch_norm import BatchNorm
from cnn_flax.layers.conv import Conv
from cnn_flax.layers.module import Module, Padding

__all__ = ["ConvBlock"]


class ConvBlock(Module):
    """Convolution, norm and activation; either of the last two may be left out.

    Its parameters are under `conv` and `bn`.

    Attributes:
      features: number of output channels.
      kernel_size: height and width of the kernel, in pixels.
      strides: step between the kernel's positions, in pixels.
      padding: zeros around the image; None is `dilation * (kernel_size // 2)` on every
        side, which keeps the size at stride 1 for an odd kernel.
      groups: number of groups of channels that do not see each other.
      use_bias: whether the convolution has a bias; None means only without a norm.
      activation: elementwise function after the norm, or None.
      conv: constructor of the convolution, configured for the network.
      norm: constructor of the norm, configured for the network; the norm is called with
        `use_running_average`. None for no norm.
      norm_scale_init: initializer of the norm's scale.
      dilation: step between the kernel's taps, in pixels.
    """

    features: int
    kernel_size: int
    strides: int = 1
    padding: Padding | None = None
    groups: int = 1
    use_bias: bool | None = None
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] | None = BatchNorm
    norm_scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, H', W', features]`."""
        padding = self.padding
        if padding is None:
            padding = self.dilation * (self.kernel_size // 2)
        x = self.conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.strides,
            padding=padding,
            kernel_dilation=self.dilation,
            feature_group_count=self.groups,
            use_bias=self.norm is None if self.use_bias is None else self.use_bias,
            name="conv",
        )(x)
        if self.norm is not None:
            x = self.norm(
                scale_init=self.norm_scale_init,
                name="bn",
            )(x, use_running_average=not train)
        return x if self.activation is None else self.activation(x)
