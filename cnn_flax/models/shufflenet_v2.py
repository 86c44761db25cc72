"""ShuffleNetV2: half of the channels pass a block unchanged, then all are shuffled.

Ma, Zhang, Zheng and Sun 2018, "ShuffleNet V2: practical guidelines for efficient CNN
architecture design", https://arxiv.org/abs/1807.11164, table 5, as in torchvision.

torchvision departs from the paper in the channels of the net of twice the width, 244,
488 and 976 as in the paper's revised table. Kernels are initialised uniformly by their
fan in, as torch does where nothing is said.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers import Conv, ConvBlock, max_pool
from cnn_flax.layers.arguments import as_images
from cnn_flax.layers.configure import configure, configure_norm
from cnn_flax.layers.global_pool import Pooling, global_pool
from cnn_flax.layers.head import dense_init, linear_head
from cnn_flax.layers.module import Module
from cnn_flax.registry import register

__all__ = ["ShuffleNetV2", "ShuffleUnit", "channel_shuffle"]

_PAPER = (
    "Ma, Zhang, Zheng and Sun 2018, ShuffleNet V2: practical guidelines for efficient "
    "CNN architecture design, https://arxiv.org/abs/1807.11164"
)


def channel_shuffle(first: jax.Array, second: jax.Array) -> jax.Array:
    """Takes turns between the channels of two maps: `[..., C], [..., C] -> [..., 2C]`.

    Channel shuffle of two groups: Zhang et al. 2017, "ShuffleNet",
    https://arxiv.org/abs/1707.01083, section 3.1.
    """
    pairs = jnp.stack([first, second], axis=-1)
    return pairs.reshape(*first.shape[:-1], 2 * first.shape[-1])


class ShuffleUnit(Module):
    """A branch of 1x1, depthwise 3x3 and 1x1, next to a shortcut; then a shuffle.

    The paper's figure 3 c, where the branch takes the second half of the channels; with
    stride 2 figure 3 d, where both sides take all, and the shortcut is a depthwise 3x3
    and a 1x1.

    Attributes:
      features: number of output channels, half of them from each side.
      strides: divisor of height and width, which are rounded up.
      conv_block: constructor of convolution, norm and activation.
    """

    features: int
    strides: int = 1
    conv_block: Callable[..., nn.Module] = ConvBlock

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), features]`."""
        half = self.features // 2
        depthwise = partial(
            self.conv_block, kernel_size=3, strides=self.strides, activation=None
        )
        if self.strides == 1:
            shortcut, y = jnp.split(x, 2, axis=-1)
        else:
            width = x.shape[-1]
            y = depthwise(width, groups=width, name="shortcut_depthwise")(
                x, train=train
            )
            shortcut = self.conv_block(half, 1, name="shortcut")(y, train=train)
            y = x
        y = self.conv_block(half, 1, name="conv1")(y, train=train)
        y = depthwise(half, groups=half, name="depthwise")(y, train=train)
        y = self.conv_block(half, 1, name="conv2")(y, train=train)
        return channel_shuffle(shortcut, y)


class ShuffleNetV2(Module):
    """A 3x3 and max pooling, three stages of units, a 1x1, pooling and a head.

    Intermediates: `stem` (after the max pooling), `stage1` to `stage3` (2 to 4 in the
    paper's table), `pre_logits`.

    Attributes:
      stage_features: output channels of the stages; even numbers.
      head_features: output channels of the last 1x1.
      stage_sizes: number of units per stage.
      num_classes: outputs of the head; 0 leaves it out and returns the pooled features.
      global_pool: pooling of the last map, one of `avg`, `max`, `avgmax` and `gem`.
      bn_momentum: decay of the running statistics (torch's momentum is 1 minus this).
      bn_axis_name: mapped axis to take batch statistics over, under `jax.pmap`.
      dtype: dtype of the computation. Parameters, statistics, pooling and head are
        float32, or `dtype` where that is wider.
    """

    stage_features: Sequence[int] = (116, 232, 464)
    head_features: int = 1024
    stage_sizes: Sequence[int] = (4, 8, 4)
    num_classes: int = 1000
    global_pool: Pooling = "avg"
    bn_momentum: float = 0.9
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        if len(self.stage_sizes) > len(self.stage_features):
            raise ValueError(
                f"stage_sizes has {len(self.stage_sizes)} stages, and stage_features "
                f"the channels of {len(self.stage_features)}."
            )
        if any(features % 2 for features in self.stage_features):
            raise ValueError(
                f"stage_features must be even, got {tuple(self.stage_features)}."
            )

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, features]` without a head.

        Stages 1 to 3 are 8, 16 and 32 times smaller than the images, rounded up.

        Raises:
          ValueError: if `images` is not of rank 4.
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype)
        conv_block = partial(
            ConvBlock,
            conv=configure(Conv, self.dtype, kernel_init=dense_init),
            norm=configure_norm(self.dtype, self.bn_momentum, self.bn_axis_name),
        )

        # Stem.
        x = conv_block(24, 3, 2, name="conv1")(x, train=train)
        x = max_pool(x, 3, 2, 1)
        self.sow("intermediates", "stem", x)

        # Stages.
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                x = ShuffleUnit(
                    self.stage_features[i],
                    2 if j == 0 else 1,
                    conv_block,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train)
            self.sow("intermediates", f"stage{i + 1}", x)

        # Head.
        x = conv_block(self.head_features, 1, name="conv5")(x, train=train)
        x = global_pool(self.global_pool)(x)
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        return linear_head(self.num_classes, self.dtype)(x)


# Table 5.


@register(paper=_PAPER)
def shufflenet_v2_x0_5(**fields: Any) -> ShuffleNetV2:
    """ShuffleNetV2, half the width: 1,366,792 parameters, trained at 224 px."""
    return ShuffleNetV2(**{"stage_features": (48, 96, 192), **fields})


@register(paper=_PAPER)
def shufflenet_v2_x1_0(**fields: Any) -> ShuffleNetV2:
    """ShuffleNetV2: 2,278,604 parameters, trained at 224 px."""
    return ShuffleNetV2(**fields)


@register(paper=_PAPER)
def shufflenet_v2_x1_5(**fields: Any) -> ShuffleNetV2:
    """ShuffleNetV2, 1.5 times the width: 3,503,624 parameters, trained at 224 px."""
    return ShuffleNetV2(**{"stage_features": (176, 352, 704), **fields})


@register(paper=_PAPER)
def shufflenet_v2_x2_0(**fields: Any) -> ShuffleNetV2:
    """ShuffleNetV2, twice the width: 7,393,996 parameters, trained at 224 px."""
    fields = {"stage_features": (244, 488, 976), "head_features": 2048, **fields}
    return ShuffleNetV2(**fields)
