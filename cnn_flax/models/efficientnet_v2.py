"""EfficientNetV2: fused first stages, smaller expansion, and stages found by search.

Tan and Le 2021, "EfficientNetV2: smaller models and faster training",
https://arxiv.org/abs/2104.00298, table 4, as in torchvision: padding of half the kernel
on every side, and BatchNorm with epsilon 1e-3 and momentum 0.1 in torch's sense.

torchvision's tables are those of the authors' code, which departs from table 4: S has
15 blocks in its last stage, and no 272-channel 1x1; the stem has as many channels as
the first stage.

The nets are trained with noise, dropout of 0.2 to 0.4 before the head and stochastic
depth of up to 0.2. They need `rngs={"dropout": key}`; `dropout_rate=0,
drop_path_rate=0` turns it off. Kernels are initialised as EfficientNet's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers import Conv, ConvBlock, DropPath
from cnn_flax.layers.arguments import as_images, check_rate
from cnn_flax.layers.configure import configure, configure_norm
from cnn_flax.layers.global_pool import Pooling, global_pool
from cnn_flax.layers.head import linear_head
from cnn_flax.layers.module import Module
from cnn_flax.models.efficientnet import MBConv, Stage
from cnn_flax.registry import register

__all__ = ["EfficientNetV2", "FusedMBConv"]

_PAPER = (
    "Tan and Le 2021, EfficientNetV2: smaller models and faster training, "
    "https://arxiv.org/abs/2104.00298"
)


class FusedMBConv(Module):
    """Expand by a full convolution, project by 1x1.

    The paper's figure 2, without squeeze and excitation, as in its table 4. There is a
    shortcut where shapes do not change.

    Attributes:
      features: number of output channels.
      kernel_size: height and width of the kernel, in pixels.
      strides: divisor of height and width, which are rounded up.
      expand_ratio: channels inside, as a multiple of the input's; 1 has no 1x1.
      drop_path: constructor of the noise on the branch.
      conv_block: constructor of convolution, norm and activation.
    """

    features: int
    kernel_size: int
    strides: int = 1
    expand_ratio: int = 4
    drop_path: Callable[..., nn.Module] = partial(DropPath, 0.0)
    conv_block: Callable[..., nn.Module] = ConvBlock

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), features]`."""
        inputs = x.shape[-1]
        conv = partial(self.conv_block, kernel_size=self.kernel_size)
        if self.expand_ratio == 1:
            y = conv(self.features, strides=self.strides, name="fused")(x, train=train)
        else:
            width = inputs * self.expand_ratio
            y = conv(width, strides=self.strides, name="fused")(x, train=train)
            project = partial(self.conv_block, activation=None, name="project")
            y = project(self.features, 1)(y, train=train)
        if self.strides == 1 and inputs == self.features:
            y = x + self.drop_path(name="drop_path")(y, deterministic=not train)
        return y


# Table 4, and the authors' code for M and L: fused stages, then those of MBConv.
_FUSED_S = (
    Stage(24, 2, 3, 1, 1),
    Stage(48, 4, 3, 2, 4),
    Stage(64, 4, 3, 2, 4),
)
_S = (
    Stage(128, 6, 3, 2, 4),
    Stage(160, 9, 3, 1, 6),
    Stage(256, 15, 3, 2, 6),
)
_FUSED_M = (
    Stage(24, 3, 3, 1, 1),
    Stage(48, 5, 3, 2, 4),
    Stage(80, 5, 3, 2, 4),
)
_M = (
    Stage(160, 7, 3, 2, 4),
    Stage(176, 14, 3, 1, 6),
    Stage(304, 18, 3, 2, 6),
    Stage(512, 5, 3, 1, 6),
)
_FUSED_L = (
    Stage(32, 4, 3, 1, 1),
    Stage(64, 7, 3, 2, 4),
    Stage(96, 7, 3, 2, 4),
)
_L = (
    Stage(192, 10, 3, 2, 4),
    Stage(224, 19, 3, 1, 6),
    Stage(384, 25, 3, 2, 6),
    Stage(640, 7, 3, 1, 6),
)


class EfficientNetV2(Module):
    """A 3x3 with stride 2, fused stages, stages of MBConv, a 1x1, pooling and a head.

    Intermediates: `stem` (what stage 1 receives), `stage1` and so on, `pre_logits`.

    Attributes:
      fused_stages: the first stages, of Fused-MBConv, as `Stage` or lists of its
        numbers.
      stages: the stages after them, of MBConv with squeeze and excitation.
      head_features: output channels of the last 1x1.
      num_classes: outputs of the head; 0 leaves it out and returns the pooled features.
      global_pool: pooling of the last map, one of `avg`, `max`, `avgmax` and `gem`.
      dropout_rate: probability of dropping a pooled feature, in [0, 1).
      drop_path_rate: probability of dropping a block's branch, in [0, 1); it grows
        linearly from 0 at the first block, and would be reached after the last.
      bn_momentum: decay of the running statistics (torch's momentum is 1 minus this).
      bn_axis_name: mapped axis to take batch statistics over, under `jax.pmap`.
      dtype: dtype of the computation. Parameters, statistics, pooling and head are
        float32, or `dtype` where that is wider.
    """

    fused_stages: Sequence[Sequence[int]] = _FUSED_S
    stages: Sequence[Sequence[int]] = _S
    head_features: int = 1280
    num_classes: int = 1000
    global_pool: Pooling = "avg"
    dropout_rate: float = 0.2
    drop_path_rate: float = 0.2
    bn_momentum: float = 0.9
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        check_rate("dropout_rate", self.dropout_rate)
        check_rate("drop_path_rate", self.drop_path_rate)
        if not self.fused_stages:
            raise ValueError("fused_stages must have a stage, got none.")
        for stage in (*self.fused_stages, *self.stages):
            if len(stage) != len(Stage._fields):
                raise ValueError(
                    f"A stage is ({', '.join(Stage._fields)}), got {stage}."
                )

    @property
    def stage_sizes(self) -> tuple[int, ...]:
        """Number of blocks per stage."""
        stages = *self.fused_stages, *self.stages
        return tuple(Stage(*stage).blocks for stage in stages)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, features]` without a head.

        The last stages are 32 times smaller than the images, rounded up.

        Raises:
          ValueError: if `images` is not of rank 4.
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype)
        conv = configure(Conv, self.dtype)
        conv_block = partial(
            ConvBlock,
            activation=nn.silu,
            conv=conv,
            norm=configure_norm(
                self.dtype, self.bn_momentum, self.bn_axis_name, epsilon=1e-3
            ),
        )
        # For a depthwise kernel [kh, kw, 1, C], JAX's fan in is the authors' fan out.
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        depthwise = partial(conv_block, conv=partial(conv, kernel_init=init))

        # Stem.
        stages = [Stage(*stage) for stage in (*self.fused_stages, *self.stages)]
        x = conv_block(stages[0].features, 3, 2, name="conv_stem")(x, train=train)
        self.sow("intermediates", "stem", x)

        # Stages.
        block_index, blocks = 0, sum(self.stage_sizes)
        for i, stage in enumerate(stages):
            is_fused = i < len(self.fused_stages)
            block = FusedMBConv if is_fused else partial(MBConv, depthwise=depthwise)
            for j in range(stage.blocks):
                drop_path_rate = self.drop_path_rate * block_index / blocks
                x = block(
                    stage.features,
                    stage.kernel_size,
                    stage.strides if j == 0 else 1,
                    stage.expand_ratio,
                    drop_path=partial(DropPath, drop_path_rate, self.bn_axis_name),
                    conv_block=conv_block,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train)
                block_index += 1
            self.sow("intermediates", f"stage{i + 1}", x)

        # Head.
        x = conv_block(self.head_features, 1, name="conv_head")(x, train=train)
        x = global_pool(self.global_pool)(x)
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        init = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
        return linear_head(self.num_classes, self.dtype, init)(x)


@register(paper=_PAPER, image_size=300)
def efficientnet_v2_s(**fields: Any) -> EfficientNetV2:
    """EfficientNetV2-S: 21,458,488 parameters, trained at 300 px."""
    return EfficientNetV2(**fields)


@register(paper=_PAPER, image_size=384)
def efficientnet_v2_m(**fields: Any) -> EfficientNetV2:
    """EfficientNetV2-M: 54,139,356 parameters, trained at 384 px."""
    scaled = {"fused_stages": _FUSED_M, "stages": _M, "dropout_rate": 0.3}
    return EfficientNetV2(**{**scaled, **fields})


@register(paper=_PAPER, image_size=384)
def efficientnet_v2_l(**fields: Any) -> EfficientNetV2:
    """EfficientNetV2-L: 118,515,272 parameters, trained at 384 px."""
    scaled = {"fused_stages": _FUSED_L, "stages": _L, "dropout_rate": 0.4}
    return EfficientNetV2(**{**scaled, **fields})
