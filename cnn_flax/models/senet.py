"""SENet: residual blocks whose branches end in squeeze and excitation.

Hu, Shen, Albanie, Sun and Wu 2017, "Squeeze-and-excitation networks",
https://arxiv.org/abs/1709.01507. The nets are `ResNet` with an `attention`; those with
published weights come from two trainings:

- `seresnet*` and `seresnext*` are timm's ResNets of those names. The squeezed width is
  a multiple of 8, at least 8: in `seresnet18` and `34` it is 8 in stage 1, where the
  paper's reduction of 16 gives 4.
- `legacy_*` are the authors' own nets, as timm has them from Caffe: the paper's
  reduction; a max pooling without padding whose last window extends over the border;
  `legacy_seresnet*` with the stride in a bottleneck's first 1x1, as in the ResNet paper
  (`legacy_seresnext*` and `legacy_senet154` have it in the 3x3); basic blocks with one
  more ReLU, before the squeeze.
- `legacy_senet154` is the paper's largest net (its appendix).

The paper's later experiments leave out the biases of the excitation's two layers; all
published weights have them.
"""

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from cnn_flax.layers import SqueezeExcite, max_pool
from cnn_flax.models.resnet import BasicBlock, Block, Bottleneck, DeepStem, ResNet
from cnn_flax.registry import register

__all__ = ["LegacyBasicBlock", "SENetBottleneck"]

_PAPER = (
    "Hu, Shen, Albanie, Sun and Wu 2017, Squeeze-and-excitation networks, "
    "https://arxiv.org/abs/1709.01507"
)
_REDUCTION = 16  # The paper's r, section 3.2.


# Attention: constructors, called with the number of channels, conv_block and a name.


def squeeze_excite(channels, conv_block, name):
    """timm's: the squeezed width is the nearest multiple of 8, at least 8."""
    features = max(8, (channels // _REDUCTION + 4) // 8 * 8)
    return SqueezeExcite(features, conv_block=conv_block, name=name)


def legacy_squeeze_excite(channels, conv_block, name):
    """The paper's."""
    features = max(1, channels // _REDUCTION)
    return SqueezeExcite(features, conv_block=conv_block, name=name)


# Blocks and stem of the legacy nets.


class LegacyBasicBlock(Block):
    """Two 3x3 convolutions, each with a ReLU, then squeeze and excitation."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), features]`."""
        y = self.branch_of_two_relus(x, train, self.conv_block)
        return self.join(x, y, train, self.conv_block)


class SENetBottleneck(Block):
    """SENet-154's: the grouped 3x3 is as wide as the output, the first 1x1 half that.

    `width_per_group` is not used.
    """

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), 4 * features]`."""
        block = self.conv_block
        wide = self.features * self.expansion
        y = block(wide // 2, 1, name="conv1")(x, train=train)
        y = block(
            wide,
            3,
            self.strides,
            groups=self.groups,
            dilation=self.first_dilation,
            name="conv2",
        )(y, train=train)
        y = block(
            wide,
            1,
            activation=None,
            norm_scale_init=self.last_norm(),
            name="conv3",
        )(y, train=train)
        return self.join(x, y, train, block)


def wide_deep_stem(features, conv_block, name):
    """Three 3x3, the last with twice the inner channels of stage 1."""
    return DeepStem(2 * features, conv_block, name=name)


# Variants: the paper's table 2, with ResNet's and ResNeXt's depths.


@register(paper=_PAPER)
def seresnet18(**fields: Any) -> ResNet:
    """SE-ResNet-18: 11,779,624 parameters, trained at 224 px."""
    return _seresnet((2, 2, 2, 2), BasicBlock, fields)


@register(paper=_PAPER)
def seresnet34(**fields: Any) -> ResNet:
    """SE-ResNet-34: 21,960,416 parameters, trained at 224 px."""
    return _seresnet((3, 4, 6, 3), BasicBlock, fields)


@register(paper=_PAPER)
def seresnet50(**fields: Any) -> ResNet:
    """SE-ResNet-50: 28,088,024 parameters, trained at 224 px."""
    return _seresnet((3, 4, 6, 3), Bottleneck, fields)


@register(paper=_PAPER)
def seresnet101(**fields: Any) -> ResNet:
    """SE-ResNet-101: 49,326,872 parameters, trained at 224 px."""
    return _seresnet((3, 4, 23, 3), Bottleneck, fields)


@register(paper=_PAPER)
def seresnet152(**fields: Any) -> ResNet:
    """SE-ResNet-152: 66,821,848 parameters, trained at 224 px."""
    return _seresnet((3, 8, 36, 3), Bottleneck, fields)


@register(paper=_PAPER)
def seresnext50_32x4d(**fields: Any) -> ResNet:
    """SE-ResNeXt-50, 32 groups of 4: 27,559,896 parameters, trained at 224 px."""
    return _seresnet((3, 4, 6, 3), Bottleneck, fields, **_32X4D)


@register(paper=_PAPER)
def seresnext101_32x4d(**fields: Any) -> ResNet:
    """SE-ResNeXt-101, 32 groups of 4: 48,955,416 parameters, trained at 224 px."""
    return _seresnet((3, 4, 23, 3), Bottleneck, fields, **_32X4D)


@register(paper=_PAPER)
def legacy_seresnet18(**fields: Any) -> ResNet:
    """SE-ResNet-18 from Caffe: 11,778,592 parameters, trained at 224 px."""
    return _legacy((2, 2, 2, 2), LegacyBasicBlock, fields)


@register(paper=_PAPER)
def legacy_seresnet34(**fields: Any) -> ResNet:
    """SE-ResNet-34 from Caffe: 21,958,868 parameters, trained at 224 px."""
    return _legacy((3, 4, 6, 3), LegacyBasicBlock, fields)


@register(paper=_PAPER)
def legacy_seresnet50(**fields: Any) -> ResNet:
    """SE-ResNet-50 from Caffe: 28,088,024 parameters, trained at 224 px."""
    return _legacy((3, 4, 6, 3), Bottleneck, fields, stride_in_1x1=True)


@register(paper=_PAPER)
def legacy_seresnet101(**fields: Any) -> ResNet:
    """SE-ResNet-101 from Caffe: 49,326,872 parameters, trained at 224 px."""
    return _legacy((3, 4, 23, 3), Bottleneck, fields, stride_in_1x1=True)


@register(paper=_PAPER)
def legacy_seresnet152(**fields: Any) -> ResNet:
    """SE-ResNet-152 from Caffe: 66,821,848 parameters, trained at 224 px."""
    return _legacy((3, 8, 36, 3), Bottleneck, fields, stride_in_1x1=True)


@register(paper=_PAPER)
def legacy_seresnext50_32x4d(**fields: Any) -> ResNet:
    """SE-ResNeXt-50 from Caffe: 27,559,896 parameters, trained at 224 px."""
    return _legacy((3, 4, 6, 3), Bottleneck, fields, **_32X4D)


@register(paper=_PAPER)
def legacy_seresnext101_32x4d(**fields: Any) -> ResNet:
    """SE-ResNeXt-101 from Caffe: 48,955,416 parameters, trained at 224 px."""
    return _legacy((3, 4, 23, 3), Bottleneck, fields, **_32X4D)


@register(paper=_PAPER)
def legacy_senet154(**fields: Any) -> ResNet:
    """SENet-154: 115,088,984 parameters, trained at 224 px.

    It has its own bottleneck, three 3x3 in the stem, 64 groups, 3x3 shortcuts where
    strided, and dropout of 0.2 before the head.
    """
    return _legacy(
        (3, 8, 36, 3),
        SENetBottleneck,
        fields,
        stem=wide_deep_stem,
        shortcut="projection_3x3",
        groups=64,
        dropout_rate=0.2,
    )


_32X4D = {"groups": 32, "width_per_group": 4}


def _seresnet(stage_sizes, block, fields, **defaults) -> ResNet:
    net = {"stage_sizes": stage_sizes, "block": block, "attention": squeeze_excite}
    return ResNet(**{**net, **defaults, **fields})


def _legacy(stage_sizes, block, fields, **defaults) -> ResNet:
    net = {
        "attention": legacy_squeeze_excite,
        "stem_pool": partial(max_pool, window=3, stride=2, ceil_mode=True),
    }
    return _seresnet(stage_sizes, block, fields, **{**net, **defaults})
