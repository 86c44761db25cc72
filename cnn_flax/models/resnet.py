"""ResNet: residual blocks, plain and projected shortcuts.

He, Zhang, Ren and Sun 2015, "Deep residual learning for image recognition",
https://arxiv.org/abs/1512.03385, with the variants that weights are published for:

- `resnet18` to `resnet152` are torchvision's ("v1.5"): the 3x3 of a bottleneck has the
  stride. In the paper the first 1x1 has it: `stride_in_1x1=True`.
- `resnet18d` to `resnet101d`: He et al. 2018, "Bag of tricks for image classification",
  https://arxiv.org/abs/1812.01187, figure 2: three 3x3 in the stem, and shortcuts that
  average before they project.
- `resnext*`: Xie et al. 2016, "Aggregated residual transformations",
  https://arxiv.org/abs/1611.05431: the 3x3 in 32 groups.
- `wide_resnet*`: Zagoruyko and Komodakis 2016, "Wide residual networks",
  https://arxiv.org/abs/1605.07146: the bottleneck's 3x3 twice as wide.
- `resnet50_gn`: Wu and He 2018, "Group normalization",
  https://arxiv.org/abs/1803.08494: 32 groups in place of BatchNorm, as in timm.
- `lab_resnet34`: a course's exercise, whose docstring lists its departures.

The kernels are drawn from the 2015 paper's own initialisation (normal, fan out), the
head as torch's `Linear`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers import (
    Conv,
    ConvBlock,
    DropPath,
    avg_pool,
    max_pool,
)
from cnn_flax.layers.arguments import as_images, check_rate
from cnn_flax.layers.configure import (
    configure,
    configure_group_norm,
    configure_norm,
)
from cnn_flax.layers.cpu.convolution import subsample
from cnn_flax.layers.dilation import StageSteps, check_output_stride, stage_steps
from cnn_flax.layers.global_pool import Pooling, global_pool
from cnn_flax.layers.head import linear_head
from cnn_flax.layers.module import Module
from cnn_flax.registry import nearest, register

__all__ = ["BasicBlock", "Bottleneck", "LabBlock", "ResNet"]

_PAPER = (
    "He, Zhang, Ren and Sun 2015, Deep residual learning for image recognition, "
    "https://arxiv.org/abs/1512.03385"
)
_PAPER_D = (
    "He, Zhang, Zhang, Zhang, Xie and Li 2018, Bag of tricks for image classification "
    "with convolutional neural networks, https://arxiv.org/abs/1812.01187"
)
_PAPER_X = (
    "Xie, Girshick, Dollár, Tu and He 2016, Aggregated residual transformations for "
    "deep neural networks, https://arxiv.org/abs/1611.05431"
)
_PAPER_GROUP_NORM = (
    "Wu and He 2018, Group normalization, https://arxiv.org/abs/1803.08494"
)
_PAPER_WIDE = (
    "Zagoruyko and Komodakis 2016, Wide residual networks, "
    "https://arxiv.org/abs/1605.07146"
)


# Shortcuts: the paths parallel to a block's convolutions.


def projection(x, features, steps, conv_block, train):
    """Strided 1x1 convolution where shapes change (the paper's option B)."""
    if steps.strides == 1 and x.shape[-1] == features:
        return x
    return projection_all(x, features, steps, conv_block, train)


def projection_all(x, features, steps, conv_block, train):
    """Strided 1x1 convolution on every block (the paper's option C)."""
    block = conv_block(features, 1, steps.strides, activation=None, name="shortcut")
    return block(x, train=train)


def projection_3x3(x, features, steps, conv_block, train):
    """Like "projection", with a 3x3 where it is strided: no pixel is skipped."""
    if steps.strides == 1 and steps.first_dilation == steps.dilation:
        return projection(x, features, steps, conv_block, train)
    block = conv_block(
        features,
        3,
        steps.strides,
        activation=None,
        dilation=steps.first_dilation,
        name="shortcut",
    )
    return block(x, train=train)


def pool_projection(x, features, steps, conv_block, train):
    """Average pooling, then 1x1, where shapes change: no pixel is skipped."""
    if steps.strides > 1:
        x = avg_pool(x, steps.strides, steps.strides)
    elif steps.first_dilation != steps.dilation:
        # As timm has it: 2x2 whatever the dilation, and zeros beyond the border count.
        right_and_below: Any = ((0, 1), (0, 1))
        x = nn.avg_pool(x, (2, 2), padding=right_and_below)
    return projection(x, features, steps._replace(strides=1), conv_block, train)


def zero_pad(x, features, steps, conv_block, train):
    """Every second pixel, and zeros for the new channels (the paper's option A)."""
    x = subsample(x, (steps.strides, steps.strides))
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))


def matrix(x, features, steps, conv_block, train):
    """Trainable matrices over height and width, then 1x1, where shapes change."""
    if steps.strides > 1:
        x = ResizeMatrix(steps.strides, name="resize")(x)
    return projection(x, features, steps._replace(strides=1), conv_block, train)


SHORTCUTS: dict[str, Callable[..., jax.Array] | None] = {
    "projection": projection,
    "projection_all": projection_all,
    "projection_3x3": projection_3x3,
    "pool_projection": pool_projection,
    "zero_pad": zero_pad,
    "matrix": matrix,
    "none": None,  # A plain net, to show what the shortcut is for.
}


class ResizeMatrix(Module):
    """Divides height and width by `strides` with one trainable matrix each.

    The matrices begin as average pooling. They fix the image size of the net.

    Attributes:
      strides: divisor of the size, which is rounded up.
    """

    strides: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), C]`."""
        dtype = jnp.promote_types(jnp.float32, x.dtype)
        height = self.param("height", self._average, x.shape[1], dtype)
        width = self.param("width", self._average, x.shape[2], dtype)
        x = jnp.einsum("nhwc,ph->npwc", x, height.astype(x.dtype))
        return jnp.einsum("npwc,qw->npqc", x, width.astype(x.dtype))

    def _average(self, key, size, dtype):
        del key
        window = jnp.arange(size) // self.strides
        weights = jax.nn.one_hot(window, -(-size // self.strides), axis=0, dtype=dtype)
        return weights / weights.sum(axis=1, keepdims=True)


# Blocks, small to large.


class Block(Module):
    """Base of the blocks: their fields, and how a branch joins its shortcut.

    Attributes:
      features: number of channels inside; the output has `expansion` times as many.
      strides: divisor of height and width, which are rounded up.
      shortcut: one of `SHORTCUTS`.
      groups: number of groups of the 3x3 (ResNeXt's cardinality); 1 in a basic block.
      width_per_group: channels per group of the 3x3 where `features` is 64, growing
        with `features`; 64 in a basic block.
      stride_in_1x1: whether a bottleneck's first 1x1 has the stride, as in the paper.
      zero_init_last_norm: whether the last norm's scale begins at 0, so that the block
        begins as its shortcut (Goyal et al. 2017, https://arxiv.org/abs/1706.02677,
        section 5.1).
      attention: constructor of the branch's last module (SENet), called with the number
        of channels, conv_block and a name; None for no such module.
      second_conv: constructor of the second convolution, the one that DCN deforms:
        a basic block's second 3x3, a bottleneck's only one; None: same as the others.
      drop_path: constructor of the noise on the branch.
      conv_block: constructor of convolution, norm and activation.
      first_dilation: step between the taps of the 3x3 that has the stride.
      dilation: step between the taps of the 3x3 after it. It differs from the first
        where dilation replaces a stride.
    """

    expansion = 1

    features: int
    strides: int = 1
    shortcut: str = "projection"
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = False
    zero_init_last_norm: bool = False
    attention: Callable[..., nn.Module] | None = None
    second_conv: Callable[..., nn.Module] | None = None
    drop_path: Callable[..., nn.Module] = partial(DropPath, 0.0)
    conv_block: Callable[..., nn.Module] = ConvBlock
    first_dilation: int = 1
    dilation: int = 1

    def last_norm(self):
        """Initializer of the last norm's scale."""
        init = nn.initializers
        return init.zeros_init() if self.zero_init_last_norm else init.ones_init()

    def second_block(self):
        """Constructor of the second convolution, norm and activation."""
        if self.second_conv is None:
            return self.conv_block
        return partial(self.conv_block, conv=self.second_conv)

    def branch_of_two_relus(self, x, train, block):
        """Two 3x3, each with a ReLU, even the one before the addition."""
        y = block(
            self.features, 3, self.strides, dilation=self.first_dilation, name="conv1"
        )(x, train=train)
        return block(
            self.features,
            3,
            norm_scale_init=self.last_norm(),
            dilation=self.dilation,
            name="conv2",
        )(y, train=train)

    def join(self, x, y, train, shortcut_block):
        """The activation of the shortcut from `x` plus the branch `y`."""
        if self.attention is not None:
            y = self.attention(y.shape[-1], self.conv_block, name="attention")(y)
        y = self.drop_path(name="drop_path")(y, deterministic=not train)
        shortcut = SHORTCUTS[self.shortcut]
        if shortcut is not None:
            steps = StageSteps(self.strides, self.first_dilation, self.dilation)
            y += shortcut(x, y.shape[-1], steps, shortcut_block, train)
        return nn.relu(y)


class BasicBlock(Block):
    """Two 3x3 convolutions with a shortcut (the paper's figure 5, left)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), features]`.

        Raises:
          ValueError: if there are groups.
        """
        if (self.groups, self.width_per_group) != (1, 64):
            raise ValueError(
                "A basic block has groups=1 and width_per_group=64, got "
                f"{self.groups} and {self.width_per_group}; a bottleneck takes others."
            )
        block = self.conv_block
        y = block(
            self.features,
            3,
            self.strides,
            dilation=self.first_dilation,
            name="conv1",
        )(x, train=train)
        y = self.second_block()(
            self.features,
            3,
            activation=None,
            dilation=self.dilation,
            norm_scale_init=self.last_norm(),
            name="conv2",
        )(y, train=train)
        return self.join(x, y, train, block)


class LabBlock(Block):
    """The exercise's block; `lab_resnet34` lists the differences."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), features]`."""
        block = partial(self.conv_block, use_bias=True)
        y = self.branch_of_two_relus(x, train, block)
        return self.join(x, y, train, partial(block, norm=None))


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (the paper's figure 5, right)."""

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), 4 * features]`."""
        block = self.conv_block
        inner = self.features * self.width_per_group // 64 * self.groups
        strides = (self.strides, 1) if self.stride_in_1x1 else (1, self.strides)
        y = block(inner, 1, strides[0], name="conv1")(x, train=train)
        y = self.second_block()(
            inner,
            3,
            strides[1],
            groups=self.groups,
            # After the stride, pixels are as far apart as those of the output.
            dilation=self.dilation if self.stride_in_1x1 else self.first_dilation,
            name="conv2",
        )(y, train=train)
        y = block(
            self.features * self.expansion,
            1,
            activation=None,
            norm_scale_init=self.last_norm(),
            name="conv3",
        )(y, train=train)
        return self.join(x, y, train, block)


# Stems: constructors called with `features`, `conv_block` and a name.


def conv_stem(features, conv_block, name):
    """The paper's 7x7 with stride 2."""
    return conv_block(features, 7, 2, name=name)


def small_stem(features, conv_block, name):
    """The paper's 3x3 for CIFAR (section 4.2)."""
    return conv_block(features, 3, name=name)


def lab_stem(features, conv_block, name):
    """The exercise's 7x7: biased, and with padding 1 instead of the paper's 3."""
    return conv_block(features, 7, 2, padding=1, use_bias=True, name=name)


class DeepStem(Module):
    """Three 3x3 instead of the 7x7 (the bag of tricks' figure 2 b, ResNet-C).

    Attributes:
      features: number of output channels; half as many in the first two.
      conv_block: constructor of convolution, norm and activation.
    """

    features: int
    conv_block: Callable[..., nn.Module] = ConvBlock

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), features]`."""
        x = self.conv_block(self.features // 2, 3, 2, name="conv1")(x, train=train)
        x = self.conv_block(self.features // 2, 3, name="conv2")(x, train=train)
        return self.conv_block(self.features, 3, name="conv3")(x, train=train)


# The network.


class ResNet(Module):
    """A stem, four stages of blocks, global average pooling and a linear head.

    Intermediates: `stem` (what stage 1 receives), `stage1` to `stage4`, `pre_logits`.

    Attributes:
      stage_sizes: number of blocks per stage.
      block: class of the blocks.
      width: channels of the stem and inside the blocks of stage 1; each further stage
        has twice as many.
      num_classes: outputs of the head; 0 leaves it out and returns the pooled features.
      global_pool: pooling of the last map, one of `avg`, `max`, `avgmax` and `gem`.
      stem: constructor of the stem, called with features, conv_block and name.
      stem_pool: the pooling after the stem.
      small_inputs: whether the stem is one 3x3 with stride 1 and no max pooling
        follows, for images of 28 to 64 px.
      shortcut: the path parallel to a block's convolutions: "projection" (1x1 where
        shapes change), "projection_all" (1x1 everywhere), "projection_3x3" (3x3 where
        strided), "pool_projection" (average pooling, then 1x1), "zero_pad" (no
        parameters), "matrix" (trainable matrices over height and width, then 1x1, which
        fixes the image size) or "none" (a plain net).
      groups: number of groups of a bottleneck's 3x3.
      width_per_group: channels per group in stage 1, where `width` is 64.
      stride_in_1x1: whether a bottleneck's first 1x1 has the stride, as in the paper.
      dropout_rate: probability of dropping a pooled feature, in [0, 1).
      drop_path_rate: probability of dropping the last block's branch, in [0, 1); it
        grows linearly from 0 at the first block.
      zero_init_last_norm: whether each block begins as its shortcut.
      attention: constructor of each branch's last module; None for no such module.
      norm_groups: groups of channels that are normalised per image, in place of
        BatchNorm: Wu and He 2018, "Group normalization"; None for BatchNorm.
      output_stride: the largest stride of a map, in pixels of the image. Below 32, the
        last stages have dilation in the place of stride, as with timm's
        `output_stride` and torchvision's `replace_stride_with_dilation`; the parameters
        are the same.
      bn_momentum: decay of the running statistics (torch's momentum is 1 minus this).
      bn_axis_name: mapped axis to take batch statistics over, under `jax.pmap`.
      dtype: dtype of the computation. Parameters, statistics, pooling and head are
        float32, or `dtype` where that is wider.
    """

    stage_sizes: Sequence[int]
    block: type[Block]
    width: int = 64
    num_classes: int = 1000
    global_pool: Pooling = "avg"
    stem: Callable[..., nn.Module] = conv_stem
    stem_pool: Callable[[jax.Array], jax.Array] = partial(
        max_pool, window=3, stride=2, padding=1
    )
    small_inputs: bool = False
    shortcut: str = "projection"
    groups: int = 1
    width_per_group: int = 64
    stride_in_1x1: bool = False
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    zero_init_last_norm: bool = False
    attention: Callable[..., nn.Module] | None = None
    norm_groups: int | None = None
    output_stride: int = 32
    bn_momentum: float = 0.9
    bn_axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        if self.shortcut not in SHORTCUTS:
            raise ValueError(
                f"There is no shortcut {self.shortcut!r}. "
                f"{nearest(self.shortcut, SHORTCUTS)} "
                f"It is one of: {', '.join(SHORTCUTS)}."
            )
        check_rate("dropout_rate", self.dropout_rate)
        check_rate("drop_path_rate", self.drop_path_rate)
        check_output_stride(self.output_stride, self._stem_stride)

    @property
    def _stem_stride(self) -> int:
        return 1 if self.small_inputs else 4

    def block_of(self, stage: int) -> Callable[..., nn.Module]:
        """Constructor of the blocks of a stage; stages count from 1."""
        del stage  # All stages have the same, except in DCN.
        return self.block

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Float `[N, H, W, C] -> [N, num_classes]`, or `[N, features]` without a head.

        Stage `i` is `[N, ceil(H / 2 ** (i + 1)), ..., width * 2 ** (i - 1) *
        expansion]`; with `small_inputs` it is four times as large, and with an
        `output_stride` below 32 it may be larger.

        Raises:
          ValueError: if `images` is not of rank 4.
          TypeError: if `images` are not floats.
        """
        x = as_images(images, self.dtype)
        if self.norm_groups is None:
            norm = configure_norm(self.dtype, self.bn_momentum, self.bn_axis_name)
        else:
            norm = configure_group_norm(self.dtype, self.norm_groups)
        conv_block = partial(
            ConvBlock,
            conv=configure(Conv, self.dtype),
            norm=norm,
        )

        # Stem.
        stem = small_stem if self.small_inputs else self.stem
        x = stem(self.width, conv_block=conv_block, name="conv1")(x, train=train)
        if not self.small_inputs:
            x = self.stem_pool(x)
        self.sow("intermediates", "stem", x)

        # Stages.
        last = max(sum(self.stage_sizes) - 1, 1)
        block_index = 0
        strides = [1 if i == 0 else 2 for i in range(len(self.stage_sizes))]
        stages = stage_steps(self._stem_stride, strides, self.output_stride)
        for i, size in enumerate(self.stage_sizes):
            steps = stages[i]
            for j in range(size):
                drop_path_rate = self.drop_path_rate * block_index / last
                x = self.block_of(i + 1)(
                    self.width * 2**i,
                    strides=steps.strides if j == 0 else 1,
                    shortcut=self.shortcut,
                    groups=self.groups,
                    width_per_group=self.width_per_group,
                    stride_in_1x1=self.stride_in_1x1,
                    zero_init_last_norm=self.zero_init_last_norm,
                    attention=self.attention,
                    drop_path=partial(DropPath, drop_path_rate, self.bn_axis_name),
                    conv_block=conv_block,
                    first_dilation=steps[1 if j == 0 else 2],
                    dilation=steps.dilation,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train=train)
                block_index += 1
            self.sow("intermediates", f"stage{i + 1}", x)

        # Head.
        x = global_pool(self.global_pool)(x)
        self.sow("intermediates", "pre_logits", x)
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return linear_head(self.num_classes, self.dtype)(x)


# Variants: the paper's table 1, and the other papers' rows for the same depths.


@register(paper=_PAPER)
def resnet18(**fields: Any) -> ResNet:
    """ResNet-18: 11,689,512 parameters, trained at 224 px."""
    return _resnet((2, 2, 2, 2), BasicBlock, fields)


@register(paper=_PAPER)
def resnet34(**fields: Any) -> ResNet:
    """ResNet-34: 21,797,672 parameters, trained at 224 px."""
    return _resnet((3, 4, 6, 3), BasicBlock, fields)


@register(paper=_PAPER)
def resnet50(**fields: Any) -> ResNet:
    """ResNet-50: 25,557,032 parameters, trained at 224 px."""
    return _resnet((3, 4, 6, 3), Bottleneck, fields)


@register(paper=_PAPER)
def resnet101(**fields: Any) -> ResNet:
    """ResNet-101: 44,549,160 parameters, trained at 224 px."""
    return _resnet((3, 4, 23, 3), Bottleneck, fields)


@register(paper=_PAPER)
def resnet152(**fields: Any) -> ResNet:
    """ResNet-152: 60,192,808 parameters, trained at 224 px."""
    return _resnet((3, 8, 36, 3), Bottleneck, fields)


@register(paper=_PAPER_D)
def resnet18d(**fields: Any) -> ResNet:
    """ResNet-18-D: 11,708,744 parameters, trained at 224 px."""
    return _resnet((2, 2, 2, 2), BasicBlock, fields, **_D)


@register(paper=_PAPER_D)
def resnet34d(**fields: Any) -> ResNet:
    """ResNet-34-D: 21,816,904 parameters, trained at 224 px."""
    return _resnet((3, 4, 6, 3), BasicBlock, fields, **_D)


@register(paper=_PAPER_D)
def resnet50d(**fields: Any) -> ResNet:
    """ResNet-50-D: 25,576,264 parameters, trained at 224 px."""
    return _resnet((3, 4, 6, 3), Bottleneck, fields, **_D)


@register(paper=_PAPER_GROUP_NORM)
def resnet50_gn(**fields: Any) -> ResNet:
    """ResNet-50 with group normalisation: 25,557,032 parameters, trained at 224 px."""
    return _resnet((3, 4, 6, 3), Bottleneck, fields, norm_groups=32)


@register(paper=_PAPER_D, image_size=256)
def resnet101d(**fields: Any) -> ResNet:
    """ResNet-101-D: 44,568,392 parameters, trained at 256 px."""
    return _resnet((3, 4, 23, 3), Bottleneck, fields, **_D)


@register(paper=_PAPER_X)
def resnext50_32x4d(**fields: Any) -> ResNet:
    """ResNeXt-50, 32 groups of 4: 25,028,904 parameters, trained at 224 px."""
    return _resnet((3, 4, 6, 3), Bottleneck, fields, groups=32, width_per_group=4)


@register(paper=_PAPER_X)
def resnext101_32x8d(**fields: Any) -> ResNet:
    """ResNeXt-101, 32 groups of 8: 88,791,336 parameters, trained at 224 px."""
    return _resnet((3, 4, 23, 3), Bottleneck, fields, groups=32, width_per_group=8)


@register(paper=_PAPER_WIDE)
def wide_resnet50_2(**fields: Any) -> ResNet:
    """Wide ResNet-50-2: 68,883,240 parameters, trained at 224 px."""
    return _resnet((3, 4, 6, 3), Bottleneck, fields, width_per_group=128)


@register(paper=_PAPER_WIDE)
def wide_resnet101_2(**fields: Any) -> ResNet:
    """Wide ResNet-101-2: 126,886,696 parameters, trained at 224 px."""
    return _resnet((3, 4, 23, 3), Bottleneck, fields, width_per_group=128)


@register(paper=_PAPER)
def lab_resnet34(**fields: Any) -> ResNet:
    """ResNet-34 as in a course's exercise: 22,720,680 parameters, 224 px.

    Its departures from the paper:

    - every convolution has a bias, even before a BatchNorm, where it has no effect;
    - the 7x7 of the stem has padding 1 instead of 3 (224 px give a map of 55 px);
    - every block has a 1x1 shortcut, even where shapes do not change, with a bias and
      without BatchNorm;
    - a block's second convolution is followed by a ReLU before the addition, so that a
      branch can only increase values; the paper's ReLU after the addition stays.

    The exercise ends with a 7x7 average pooling and takes only 224 px, at which that is
    the global pooling used here.
    """
    return _resnet(
        (3, 4, 6, 3), LabBlock, fields, stem=lab_stem, shortcut="projection_all"
    )


_D = {"stem": DeepStem, "shortcut": "pool_projection"}


def _resnet(stage_sizes, block, fields, **defaults) -> ResNet:
    return ResNet(**{"stage_sizes": stage_sizes, "block": block, **defaults, **fields})
