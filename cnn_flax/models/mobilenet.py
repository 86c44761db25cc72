"""MobileNetV2: inverted residuals between linear bottlenecks.

Sandler, Howard, Zhu, Zhmoginov and Chen 2018, "MobileNetV2: inverted residuals and
linear bottlenecks", https://arxiv.org/abs/1801.04381, table 2, as in torchvision.

torchvision adds to the paper, or departs from the authors' code, in:

- dropout of 0.2 before the head, which the authors' code has but the paper does not
  mention;
- padding of half the kernel on every side, where the authors' TensorFlow code has
  "SAME";
- BatchNorm with epsilon 1e-5 and momentum 0.1 in torch's sense, where the authors' code
  has 1e-3 and 0.003;
- kernels initialised as He et al. 2015 (normal, fan out), where the fan out of a
  depthwise kernel counts all channels; the head from a normal of 0.01.

Stochastic depth, off by default, is timm's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers import Conv, ConvBlock, DropPath
from cnn_flax.layers.arguments import as_images, check_rate
from cnn_flax.layers.channels import round_channels
from cnn_flax.layers.configure import configure, configure_norm
from cnn_flax.layers.dilation import (
    check_output_stride,
    last_of_each_stride,
    stage_steps,
)
from cnn_flax.layers.global_pool import Pooling, global_pool
from cnn_flax.layers.head import linear_head
from cnn_flax.layers.module import Module
from cnn_flax.registry import register

__all__ = ["InvertedResidual", "MobileNetV2"]

_PAPER = (
    "Sandler, Howard, Zhu, Zhmoginov and Chen 2018, MobileNetV2: inverted residuals "
    "and linear bottlenecks, https://arxiv.org/abs/1801.04381"
)

_head_init = nn.initializers.normal(0.01)


class InvertedResidual(Module):
    """Expand by 1x1, filter depthwise by 3x3, project by a linear 1x1.

    The paper's table 1 and figure 4 d. There is a shortcut where shapes do not change.

    Attributes:
      features: number of output channels.
      strides: divisor of height and width, which are rounded up.
      expand_ratio: channels inside, as a multiple of the input's; 1 has no expansion.
      drop_path: constructor of the noise on the branch.
      conv_block: constructor of convolution, norm and activation.
      dilation: step between the depthwise kernel's taps, in pixels.
      shortcut: whether there may be one. A block whose stride is replaced by dilation
        has none, as with its stride.
    """

    features: int
    strides: int = 1
    expand_ratio: int = 6
    drop_path: Callable[..., nn.Module] = partial(DropPath, 0.0)
    conv_block: Callable[..., nn.Module] = partial(ConvBlock, activation=nn.relu6)
    dilation: int = 1
    shortcut: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), features]`."""
        width = x.shape[-1] * self.expand_ratio
        y = x
        if self.expand_ratio != 1:
            y = self.conv_block(width, 1, name="expand")(y, train=train)
        y = self.conv_block(
            width,
            3,
            self.strides,
            groups=width,
            dilation=self.dilation,
            name="depthwise",
        )(y, train=train)
        y = self.conv_block(self.features, 1, activation=None, name="project")(
            y, train=train
        )
        same_shape = self.strides == 1 and x.shape[-1] == self.features
        if self.shortcut and same_shape:
            y = x + self.drop_path(name="drop_path")(y, deterministic=not train)
        return y


class _Stage(NamedTuple):
    """A row of bottlenecks in table 2: its columns t, c, n and s."""

    expand_ratio: int
    features: int
    blocks: int
    strides: int


_TABLE_2 = (
    _Stage(1, 16, 1, 1),
    _Stage(6, 24, 2, 2),
    _Stage(6, 32, 3, 2),
    _Stage(6, 64, 4, 2),
    _Stage(6, 96, 3, 1),
    _Stage(6, 160, 3, 2),
    _Stage(6, 320, 1, 1),
)
_STEM, _HEAD = 32, 1280


class MobileNetV2(Module):
    """A 3x3 with stride 2, stages of inverted residuals, a 1x1, pooling and a head.

    Intermediates: `stem` (what stage 1 receives), `stage1` to `stage7`, `pre_logits`.

    Attributes:
      width_multiplier: factor on all numbers of channels, which are rounded to
        multiples of 8; the last 1x1 keeps its 1280 channels below 1 (section 6.1).
      num_classes: outputs of the head; 0 leaves it out and returns the pooled features.
      global_pool: pooling of the last map, one of `avg`, `max`, `avgmax` and `gem`.
      stage_sizes: number of blocks per stage; fewer than seven stages leave out the
        table's last ones.
      dropout_rate: probability of dropping a pooled feature, in [0, 1).
      drop_path_rate: probability of dropping a block's branch, in [0, 1); it grows
        linearly from 0 at the first block, and would be reached after the last.
      output_stride: the largest stride of a map, in pixels of the image. Below 32, the
        last stages have dilation in the place of stride, as with timm's
        `output_stride` and torchvision's `replace_stride_with_dilation`; the parameters
        are the same.
      bn_momentum: decay of the running statistics (torch's momentum is 1 minus this).
      bn_axis_name: mapped axis to take batch statistics over, under `jax.pmap`.
      dtype: dtype of the computation. Parameters, statistics, pooling and head are
        float32, or `dtype` where that is wider.
    """

    width_multiplier: float = 1.0
    num_classes: int = 1000
    global_pool: Pooling = "avg"
    stage_sizes: Sequence[int] = tuple(stage.blocks for stage in _TABLE_2)
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.0
    output_stride: int = 32
    bn_momentum: float = 0.9
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        check_rate("dropout_rate", self.dropout_rate)
        check_rate("drop_path_rate", self.drop_path_rate)
        check_output_stride(self.output_stride, 2)
        if not self.width_multiplier > 0:
            raise ValueError(
                f"width_multiplier must be positive, got {self.width_multiplier}."
            )
        if len(self.stage_sizes) > len(_TABLE_2):
            raise ValueError(
                f"stage_sizes has at most {len(_TABLE_2)} stages, got "
                f"{len(self.stage_sizes)}."
            )

    @property
    def pyramid(self) -> tuple[str, ...]:
        """Names of the maps that a pyramid is made of: the last of each stride."""
        return last_of_each_stride(self._strides)

    @property
    def _strides(self) -> list[int]:
        return [stage.strides for stage in _TABLE_2[: len(self.stage_sizes)]]

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, features]` without a head.

        Stages 1 to 7 are 2, 4, 8, 16, 16, 32 and 32 times smaller than the images,
        rounded up, but no more than `output_stride` times.

        Raises:
          ValueError: if `images` is not of rank 4.
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype)
        conv_block = partial(
            ConvBlock,
            activation=nn.relu6,
            conv=configure(Conv, self.dtype),
            norm=configure_norm(self.dtype, self.bn_momentum, self.bn_axis_name),
        )

        # Stem.
        width = round_channels(_STEM * self.width_multiplier)
        x = conv_block(width, 3, 2, name="conv_stem")(x, train=train)
        self.sow("intermediates", "stem", x)

        # Stages.
        block_index, blocks = 0, sum(self.stage_sizes)
        stages = stage_steps(2, self._strides, self.output_stride)
        for i, size in enumerate(self.stage_sizes):
            stage, steps = _TABLE_2[i], stages[i]
            for j in range(size):
                drop_path_rate = self.drop_path_rate * block_index / blocks
                x = InvertedResidual(
                    round_channels(stage.features * self.width_multiplier),
                    steps.strides if j == 0 else 1,
                    stage.expand_ratio,
                    drop_path=partial(DropPath, drop_path_rate, self.bn_axis_name),
                    conv_block=conv_block,
                    dilation=steps[1 if j == 0 else 2],
                    shortcut=j > 0 or stage.strides == 1,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train)
                block_index += 1
            self.sow("intermediates", f"stage{i + 1}", x)

        # Head.
        width = round_channels(_HEAD * max(1.0, self.width_multiplier))
        x = conv_block(width, 1, name="conv_head")(x, train=train)
        x = global_pool(self.global_pool)(x)
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return linear_head(self.num_classes, self.dtype, _head_init)(x)


@register(paper=_PAPER)
def mobilenet_v2(**fields: Any) -> MobileNetV2:
    """MobileNetV2, width multiplier 1: 3,504,872 parameters, trained at 224 px."""
    return MobileNetV2(**fields)
