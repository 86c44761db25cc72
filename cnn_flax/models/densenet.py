"""DenseNet: each layer reads the outputs of all layers before it.

Huang, Liu, van der Maaten and Weinberger 2016, "Densely connected convolutional
networks", https://arxiv.org/abs/1608.06993. The nets are DenseNet-BC: bottlenecks, and
transitions that compress. `densenet121` to `201` are torchvision's, which equal the
paper's table 1; `densenet161` is its net of growth rate 48 and a stem of 96 channels.

Each layer normalises all previous outputs, and the backward pass needs the results
again: saving them takes memory that grows with the square of the depth. `remat=True`
saves only the layers' outputs and recomputes the rest, so that memory grows linearly
with the depth. Temporary memory of one training pass on a CPU with 8 images of 224 px
in float32 (by XLA's own account), in MiB:

| net | `remat=False` | `remat=True` |
| --- | --- | --- |
| DenseNet-121 | 1,459 | 283 |
| DenseNet-201 | 2,278 | 306 |

Dense blocks of 8, 16 and 32 layers take 58, 145 and 429 MiB without it, and 20, 27 and
43 MiB with it (2 images of 112 px). On that CPU it is no slower: 2.7 s per pass of
DenseNet-121, 3.2 s without. It was not measured on a GPU.

The kernels are initialised as in torchvision (normal, fan in), the head as torch's
`Linear`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers import BatchNorm, Conv, ConvBlock, max_pool
from cnn_flax.layers.arguments import as_images, check_rate
from cnn_flax.layers.configure import configure, configure_norm
from cnn_flax.layers.global_pool import Pooling, global_pool
from cnn_flax.layers.head import linear_head
from cnn_flax.layers.module import Module
from cnn_flax.layers.remat import remat
from cnn_flax.registry import register

__all__ = ["DenseLayer", "DenseNet", "Transition"]

_PAPER = (
    "Huang, Liu, van der Maaten and Weinberger 2016, Densely connected convolutional "
    "networks, https://arxiv.org/abs/1608.06993"
)

_fan_in_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class DenseLayer(Module):
    """BN, ReLU, 1x1, then BN, ReLU, 3x3, on all previous outputs (section 3).

    Attributes:
      growth_rate: number of channels that it adds (the paper's k).
      bn_size: channels between the convolutions, as a multiple of `growth_rate`.
      conv: constructor of the convolution, configured for the network.
      norm: constructor of the norm, configured for the network.
    """

    growth_rate: int
    bn_size: int = 4
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, *features: jax.Array, train: bool = False) -> jax.Array:
        """Several `[N, H, W, C_i] -> [N, H, W, growth_rate]`."""
        x = jnp.concatenate(features, axis=-1)
        x = self.norm(name="bn1")(x, use_running_average=not train)
        width = self.bn_size * self.growth_rate
        x = self.conv(width, (1, 1), name="conv1")(nn.relu(x))
        x = self.norm(name="bn2")(x, use_running_average=not train)
        return self.conv(self.growth_rate, (3, 3), padding=1, name="conv2")(nn.relu(x))


class Transition(Module):
    """BN, ReLU, 1x1 and 2x2 average pooling between dense blocks (section 3).

    Attributes:
      features: number of output channels.
      conv: constructor of the convolution, configured for the network.
      norm: constructor of the norm, configured for the network.
    """

    features: int
    conv: Callable[..., Any] = Conv
    norm: Callable[..., Any] = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, floor(H / 2), floor(W / 2), features]`."""
        x = self.norm(name="bn")(x, use_running_average=not train)
        x = self.conv(self.features, (1, 1), name="conv")(nn.relu(x))
        return nn.avg_pool(x, (2, 2), (2, 2))


class DenseNet(Module):
    """A stem, dense blocks with transitions between them, and a linear head.

    Intermediates: `stem` (what stage 1 receives), `stage1` to `stage4` (the dense
    blocks, before the transitions), `pre_logits`.

    Attributes:
      stage_sizes: number of layers per dense block.
      growth_rate: channels that each layer adds (the paper's k).
      num_init_features: channels of the stem.
      bn_size: channels inside a layer, as a multiple of `growth_rate`.
      compression: share of the channels that a transition keeps (the paper's theta).
      num_classes: outputs of the head; 0 leaves it out and returns the pooled features.
      global_pool: pooling of the last map, one of `avg`, `max`, `avgmax` and `gem`.
      small_inputs: whether the stem is one 3x3 with stride 1 and no max pooling
        follows, for images of 28 to 64 px (section 3, "Implementation details").
      dropout_rate: probability of dropping an element of a layer's output, in [0, 1).
      remat: whether the backward pass recomputes the layers' intermediate results
        instead of saving them; see the head of this file.
      bn_momentum: decay of the running statistics (torch's momentum is 1 minus this).
      bn_axis_name: mapped axis to take batch statistics over, under `jax.pmap`.
      dtype: dtype of the computation. Parameters, statistics, pooling and head are
        float32, or `dtype` where that is wider.
    """

    stage_sizes: Sequence[int]
    growth_rate: int = 32
    num_init_features: int = 64
    bn_size: int = 4
    compression: float = 0.5
    num_classes: int = 1000
    global_pool: Pooling = "avg"
    small_inputs: bool = False
    dropout_rate: float = 0.0
    remat: bool = False
    bn_momentum: float = 0.9
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        check_rate("dropout_rate", self.dropout_rate)
        if not 0 < self.compression <= 1:
            raise ValueError(f"compression must be in (0, 1], got {self.compression}.")

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, features]` without a head.

        Stage 1 is `[N, ceil(H / 4), ceil(W / 4), ...]`, or `[N, H, W, ...]` with
        `small_inputs`; each further stage is half of that, rounded down.

        Raises:
          ValueError: if `images` is not of rank 4, or too small to halve this often.
          TypeError: if `images` are not floats.
        """
        # At these sizes the last stage has one pixel.
        smallest = 2 ** (len(self.stage_sizes) - 1)
        min_size = smallest if self.small_inputs else 4 * smallest - 3
        x = as_images(images, self.dtype, min_size)
        conv = configure(Conv, self.dtype, use_bias=False, kernel_init=_fan_in_normal)
        norm = configure_norm(self.dtype, self.bn_momentum, self.bn_axis_name)

        # Stem.
        kernel_size, strides = (3, 1) if self.small_inputs else (7, 2)
        x = ConvBlock(
            self.num_init_features,
            kernel_size,
            strides,
            conv=conv,
            norm=norm,
            name="conv1",
        )(x, train=train)
        if not self.small_inputs:
            x = max_pool(x, 3, 2, padding=1)
        self.sow("intermediates", "stem", x)

        # Stages.
        for i, size in enumerate(self.stage_sizes):
            features = (x,)
            for j in range(size):
                layer = DenseLayer(
                    self.growth_rate,
                    self.bn_size,
                    conv,
                    norm,
                    name=f"stage{i + 1}_layer{j + 1}",
                )
                if self.remat:
                    new, features = remat(layer, *features, train=train)
                else:
                    new = layer(*features, train=train)
                new = nn.Dropout(self.dropout_rate, deterministic=not train)(new)
                features = (*features, new)
            x = jnp.concatenate(features, axis=-1)
            self.sow("intermediates", f"stage{i + 1}", x)
            if i < len(self.stage_sizes) - 1:
                x = Transition(
                    int(self.compression * x.shape[-1]),
                    conv,
                    norm,
                    name=f"transition{i + 1}",
                )(x, train=train)

        # Head.
        x = nn.relu(norm(name="bn")(x, use_running_average=not train))
        x = global_pool(self.global_pool)(x)
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        return linear_head(self.num_classes, self.dtype)(x)


# Variants: the paper's table 1.


@register(paper=_PAPER)
def densenet121(**fields: Any) -> DenseNet:
    """DenseNet-121, growth rate 32: 7,978,856 parameters, trained at 224 px."""
    return _densenet((6, 12, 24, 16), fields)


@register(paper=_PAPER)
def densenet161(**fields: Any) -> DenseNet:
    """DenseNet-161, growth rate 48: 28,681,000 parameters, trained at 224 px."""
    return _densenet((6, 12, 36, 24), fields, growth_rate=48, num_init_features=96)


@register(paper=_PAPER)
def densenet169(**fields: Any) -> DenseNet:
    """DenseNet-169, growth rate 32: 14,149,480 parameters, trained at 224 px."""
    return _densenet((6, 12, 32, 32), fields)


@register(paper=_PAPER)
def densenet201(**fields: Any) -> DenseNet:
    """DenseNet-201, growth rate 32: 20,013,928 parameters, trained at 224 px."""
    return _densenet((6, 12, 48, 32), fields)


def _densenet(stage_sizes, fields, **defaults) -> DenseNet:
    return DenseNet(**{"stage_sizes": stage_sizes, **defaults, **fields})
