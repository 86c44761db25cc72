"""Squeeze and excitation: channels weighted by features of the whole image.

Hu, Shen, Albanie, Sun and Wu 2017, "Squeeze-and-excitation networks",
https://arxiv.org/abs/1709.01507, figure 2.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

from cnn_flax.layers.conv_block import ConvBlock
from cnn_flax.layers.module import Module
from cnn_flax.layers.pooling import global_avg_pool

__all__ = ["SqueezeExcite"]


class SqueezeExcite(Module):
    """Scales each channel by a gate in [0, 1], computed from all channels' means.

    Two biased 1x1 convolutions on the means, `reduce` and `expand`, then the gate.

    Attributes:
      features: number of channels between the two convolutions.
      activation: elementwise function between them.
      gate: elementwise function after them, into [0, 1].
      conv_block: constructor of convolution, norm and activation.
    """

    features: int
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid
    conv_block: Callable[..., nn.Module] = ConvBlock

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C] -> [N, H, W, C]`."""
        s = global_avg_pool(x).astype(x.dtype)[:, None, None, :]
        s = self.conv_block(
            self.features, 1, norm=None, activation=self.activation, name="reduce"
        )(s)
        s = self.conv_block(
            x.shape[-1], 1, norm=None, activation=self.gate, name="expand"
        )(s)
        return x * s
