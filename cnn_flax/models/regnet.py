"""RegNet: widths and depths of the stages from a linear rule.

Radosavovic, Kosaraju, Girshick, He and Dollár 2020, "Designing network design spaces",
https://arxiv.org/abs/2003.13678: RegNetY, whose blocks squeeze and excite, as in
torchvision. The numbers of the linear rule are torchvision's (and the authors' code's):
the paper's tables have the widths and depths alone.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers import Conv, ConvBlock, SqueezeExcite
from cnn_flax.layers.arguments import as_images, finite_number
from cnn_flax.layers.configure import configure, configure_norm
from cnn_flax.layers.global_pool import Pooling, global_pool
from cnn_flax.layers.head import linear_head
from cnn_flax.layers.module import Module
from cnn_flax.registry import register

__all__ = ["RegNet", "RegNetBlock", "linear_widths"]

_PAPER = (
    "Radosavovic, Kosaraju, Girshick, He and Dollár 2020, Designing network design "
    "spaces, https://arxiv.org/abs/2003.13678"
)


def linear_widths(
    depth: int, w_0: float, w_a: float, w_m: float, group_width: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths and numbers of blocks of the stages, from the paper's section 3.3.

    Block j would have the width `w_0 + w_a * j` (equation 2). It gets the nearest
    `w_0 * w_m ** s` with a whole s (equations 3 and 4), as a multiple of 8. Blocks of
    one width are a stage, and widths are multiples of the groups' width.

    Args:
      depth: number of blocks.
      w_0: the first block's width.
      w_a: what the width grows by from block to block.
      w_m: ratio of the widths of two stages.
      group_width: number of channels per group.

    Returns:
      The widths of the stages, and their numbers of blocks.
    """
    steps = np.rint(np.log(1 + w_a * np.arange(depth) / w_0) / np.log(w_m))
    widths = (np.rint(w_0 * w_m**steps / 8) * 8).astype(int)
    widths, blocks = np.unique(widths, return_counts=True)
    groups = np.minimum(group_width, widths)
    # Half a group more rounds up, and then up again if that is over 10 % less.
    rounded = np.maximum(groups, (widths + groups // 2) // groups * groups)
    rounded += np.where(rounded < 0.9 * widths, groups, 0)
    return tuple(map(int, rounded)), tuple(map(int, blocks))


class RegNetBlock(Module):
    """1x1, grouped 3x3, squeeze and excitation, 1x1; a 1x1 shortcut if shapes change.

    The paper's figure 4 with an excitation after the 3x3 (its appendix, RegNetY).

    Attributes:
      features: number of channels, of all convolutions.
      strides: divisor of height and width, which are rounded up.
      group_width: number of channels per group of the 3x3.
      se_ratio: squeezed channels as a share of the input's; 0 has no excitation.
      conv_block: constructor of convolution, norm and activation.
    """

    features: int
    strides: int = 1
    group_width: int = 8
    se_ratio: float = 0.25
    conv_block: Callable[..., nn.Module] = ConvBlock

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), features]`."""
        groups = max(1, self.features // self.group_width)
        y = self.conv_block(self.features, 1, name="conv1")(x, train=train)
        y = self.conv_block(
            self.features, 3, self.strides, groups=groups, name="conv2"
        )(y, train=train)
        if self.se_ratio > 0:
            y = SqueezeExcite(
                max(1, round(self.se_ratio * x.shape[-1])),
                conv_block=self.conv_block,
                name="squeeze_excite",
            )(y)
        linear = partial(self.conv_block, self.features, 1, activation=None)
        y = linear(name="conv3")(y, train=train)
        if self.strides != 1 or x.shape[-1] != self.features:
            x = linear(strides=self.strides, name="downsample")(x, train=train)
        return nn.relu(x + y)


class RegNet(Module):
    """A 3x3 with stride 2, stages that each halve the map, pooling and a head.

    Intermediates: `stem` (what stage 1 receives), `stage1` to `stage4`, `pre_logits`.

    Attributes:
      stage_features: number of channels of each stage; see `linear_widths`.
      stage_sizes: number of blocks per stage.
      group_width: number of channels per group of the 3x3s, at most the stage's.
      se_ratio: squeezed channels as a share of a block's input; 0: no excitation.
      stem_features: number of channels of the stem.
      num_classes: outputs of the head; 0 leaves it out and returns the pooled features.
      global_pool: pooling of the last map, one of `avg`, `max`, `avgmax` and `gem`.
      bn_momentum: decay of the running statistics (torch's momentum is 1 minus this).
      bn_axis_name: mapped axis to take batch statistics over, under `jax.pmap`.
      dtype: dtype of the computation. Parameters, statistics, pooling and head are
        float32, or `dtype` where that is wider.
    """

    stage_features: Sequence[int]
    stage_sizes: Sequence[int]
    group_width: int
    se_ratio: float = 0.25
    stem_features: int = 32
    num_classes: int = 1000
    global_pool: Pooling = "avg"
    bn_momentum: float = 0.9
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        finite_number("se_ratio", self.se_ratio, 0)
        if len(self.stage_sizes) != len(self.stage_features):
            raise ValueError(
                f"stage_sizes has {len(self.stage_sizes)} stages, and stage_features "
                f"{len(self.stage_features)}."
            )
        for features in self.stage_features:
            if features % min(features, self.group_width):
                raise ValueError(
                    "stage_features must be multiples of group_width, got "
                    f"{features} and {self.group_width}."
                )

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, features]` without a head.

        Stage i is 2 ** (i + 1) times smaller than the images, rounded up.

        Raises:
          ValueError: if `images` is not of rank 4.
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype)
        conv_block = partial(
            ConvBlock,
            conv=configure(Conv, self.dtype),
            norm=configure_norm(self.dtype, self.bn_momentum, self.bn_axis_name),
        )

        # Stem.
        x = conv_block(self.stem_features, 3, 2, name="stem_conv")(x, train=train)
        self.sow("intermediates", "stem", x)

        # Stages.
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                x = RegNetBlock(
                    self.stage_features[i],
                    2 if j == 0 else 1,
                    min(self.group_width, self.stage_features[i]),
                    self.se_ratio,
                    conv_block,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train)
            self.sow("intermediates", f"stage{i + 1}", x)

        # Head.
        x = global_pool(self.global_pool)(x)
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        init = nn.initializers.normal(0.01)
        return linear_head(self.num_classes, self.dtype, init)(x)


def _regnet(
    depth: int,
    w_0: float,
    w_a: float,
    w_m: float,
    group_width: int,
    fields: dict[str, Any],
) -> RegNet:
    widths, sizes = linear_widths(depth, w_0, w_a, w_m, group_width)
    rule = {"stage_features": widths, "stage_sizes": sizes, "group_width": group_width}
    return RegNet(**{**rule, **fields})


@register(paper=_PAPER)
def regnet_y_400mf(**fields: Any) -> RegNet:
    """RegNetY-400MF: 4,344,144 parameters, trained at 224 px."""
    return _regnet(16, 48, 27.89, 2.09, 8, fields)


@register(paper=_PAPER)
def regnet_y_800mf(**fields: Any) -> RegNet:
    """RegNetY-800MF: 6,432,512 parameters, trained at 224 px."""
    return _regnet(14, 56, 38.84, 2.4, 16, fields)


@register(paper=_PAPER)
def regnet_y_1_6gf(**fields: Any) -> RegNet:
    """RegNetY-1.6GF: 11,202,430 parameters, trained at 224 px."""
    return _regnet(27, 48, 20.71, 2.65, 24, fields)


@register(paper=_PAPER)
def regnet_y_3_2gf(**fields: Any) -> RegNet:
    """RegNetY-3.2GF: 19,436,338 parameters, trained at 224 px."""
    return _regnet(21, 80, 42.63, 2.66, 24, fields)


@register(paper=_PAPER)
def regnet_y_8gf(**fields: Any) -> RegNet:
    """RegNetY-8GF: 39,381,472 parameters, trained at 224 px."""
    return _regnet(17, 192, 76.82, 2.19, 56, fields)


@register(paper=_PAPER)
def regnet_y_16gf(**fields: Any) -> RegNet:
    """RegNetY-16GF: 83,590,140 parameters, trained at 224 px."""
    return _regnet(18, 200, 106.23, 2.48, 112, fields)


@register(paper=_PAPER)
def regnet_y_32gf(**fields: Any) -> RegNet:
    """RegNetY-32GF: 145,046,770 parameters, trained at 224 px."""
    return _regnet(20, 232, 115.89, 2.53, 232, fields)
