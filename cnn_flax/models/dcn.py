"""DCN: ResNets whose 3x3 convolutions learn where they sample.

- v1, `resnet*_dcn`: Dai, Qi, Xiong, Li, Zhang, Hu and Wei 2017, "Deformable
  convolutional networks", https://arxiv.org/abs/1703.06211: each tap has an offset. The
  paper deforms only stage 4, `deform_stages=(4,)`; here it is stages 2 to 4 as in v2.
- v2, `resnet*_dcnv2`: Zhu, Hu, Lin and Dai 2019, "Deformable ConvNets v2: more
  deformable, better results", https://arxiv.org/abs/1811.11168: each tap has a mask as
  well, in stages 2 to 4 (the papers' conv3 to conv5).

The papers use such nets in detectors; here they classify. The deformable convolution is
a bottleneck's 3x3 or a basic block's second 3x3. Everything else is `ResNet`,
torchvision's variant. A v1 net initialised with a ResNet's weights gives that ResNet's
logits; in v2 the masks begin at 1/2, and the statistics of the norms after them must
adapt.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flax import linen as nn
from flax import traverse_util

from cnn_flax.layers import DeformConv
from cnn_flax.layers.configure import configure
from cnn_flax.models.resnet import BasicBlock, Bottleneck, ResNet
from cnn_flax.registry import register

__all__ = ["OFFSET_RATE", "DeformResNet", "label_offsets"]

_PAPER_V1 = (
    "Dai, Qi, Xiong, Li, Zhang, Hu and Wei 2017, Deformable convolutional networks, "
    "https://arxiv.org/abs/1703.06211"
)
_PAPER_V2 = (
    "Zhu, Hu, Lin and Dai 2019, Deformable ConvNets v2: more deformable, better "
    "results, https://arxiv.org/abs/1811.11168"
)

# Factor on the learning rate of offsets and masks: v2's section 3.2. v1's section 2.1
# leaves it at 1.
OFFSET_RATE = 0.1


def label_offsets(params: Any) -> Any:
    """Labels the branches that compute offsets and masks, and the rest of a net.

    For v2's rule that they learn at `OFFSET_RATE` times the learning rate of the rest:

        optax.multi_transform(
            {"offset": optax.sgd(OFFSET_RATE * rate), "rest": optax.sgd(rate)},
            label_offsets,
        )

    Args:
      params: parameters of a net with `DeformConv` layers, or their gradients.

    Returns:
      A tree of the same structure: "offset" or "rest" for each parameter.
    """
    return traverse_util.path_aware_map(
        lambda path, _: "offset" if "offset" in path else "rest", params
    )


class DeformResNet(ResNet):
    """`ResNet` with deformable convolutions; it has these fields in addition.

    Attributes:
      deform_stages: the stages, from 1 to 4, whose blocks have one.
      modulated: whether each tap has a mask as well as an offset (v2).
    """

    deform_stages: Sequence[int] = (2, 3, 4)
    modulated: bool = True

    def __post_init__(self):
        super().__post_init__()
        stages = range(1, len(self.stage_sizes) + 1)
        if not set(self.deform_stages) <= set(stages):
            raise ValueError(
                f"deform_stages must be among {', '.join(map(str, stages))}; "
                f"got {self.deform_stages}."
            )

    def block_of(self, stage: int) -> Callable[..., nn.Module]:
        """Constructor of the blocks of a stage; stages count from 1."""
        if stage not in self.deform_stages:
            return self.block
        conv = configure(DeformConv, self.dtype, modulated=self.modulated)
        return partial(self.block, second_conv=conv)


# Variants: ResNet's table 1.


@register(paper=_PAPER_V1)
def resnet18_dcn(**fields: Any) -> DeformResNet:
    """DCN on ResNet-18: 11,979,924 parameters, 224 px."""
    return _dcn((2, 2, 2, 2), BasicBlock, fields, modulated=False)


@register(paper=_PAPER_V1)
def resnet34_dcn(**fields: Any) -> DeformResNet:
    """DCN on ResNet-34: 22,378,514 parameters, 224 px."""
    return _dcn((3, 4, 6, 3), BasicBlock, fields, modulated=False)


@register(paper=_PAPER_V1)
def resnet50_dcn(**fields: Any) -> DeformResNet:
    """DCN on ResNet-50: 26,137,874 parameters, 224 px."""
    return _dcn((3, 4, 6, 3), Bottleneck, fields, modulated=False)


@register(paper=_PAPER_V1)
def resnet101_dcn(**fields: Any) -> DeformResNet:
    """DCN on ResNet-101: 45,835,332 parameters, 224 px."""
    return _dcn((3, 4, 23, 3), Bottleneck, fields, modulated=False)


@register(paper=_PAPER_V2)
def resnet18_dcnv2(**fields: Any) -> DeformResNet:
    """DCNv2 on ResNet-18: 12,125,130 parameters, 224 px."""
    return _dcn((2, 2, 2, 2), BasicBlock, fields, modulated=True)


@register(paper=_PAPER_V2)
def resnet34_dcnv2(**fields: Any) -> DeformResNet:
    """DCNv2 on ResNet-34: 22,668,935 parameters, 224 px."""
    return _dcn((3, 4, 6, 3), BasicBlock, fields, modulated=True)


@register(paper=_PAPER_V2)
def resnet50_dcnv2(**fields: Any) -> DeformResNet:
    """DCNv2 on ResNet-50: 26,428,295 parameters, 224 px."""
    return _dcn((3, 4, 6, 3), Bottleneck, fields, modulated=True)


@register(paper=_PAPER_V2)
def resnet101_dcnv2(**fields: Any) -> DeformResNet:
    """DCNv2 on ResNet-101: 46,478,418 parameters, 224 px."""
    return _dcn((3, 4, 23, 3), Bottleneck, fields, modulated=True)


def _dcn(stage_sizes, block, fields, *, modulated) -> DeformResNet:
    defaults = {"stage_sizes": stage_sizes, "block": block, "modulated": modulated}
    return DeformResNet(**{**defaults, **fields})
