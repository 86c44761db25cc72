"""ResNet, ResNeXt, Wide ResNet, SE-ResNet and DCN; the lab's ResNet-34."""

from cnn_flax.weights.dialects.base import Dialect, Rule, family


def _resnet(shortcut: int) -> Dialect:
    """Names in torchvision and timm.

    Args:
      shortcut: index of the convolution in a projection shortcut's sequence.
    """
    projection = r"stage(\d)_block(\d+)/shortcut/"
    attention = r"stage(\d)_block(\d+)/attention/"
    return Dialect(
        (
            Rule("conv1/conv", "conv1"),
            Rule("conv1/bn", "bn1"),
            # A stem of three convolutions is one sequence, except for its last norm.
            Rule("conv1/conv1/conv", "conv1.0"),
            Rule("conv1/conv1/bn", "conv1.1"),
            Rule("conv1/conv2/conv", "conv1.3"),
            Rule("conv1/conv2/bn", "conv1.4"),
            Rule("conv1/conv3/conv", "conv1.6"),
            Rule("conv1/conv3/bn", "bn1"),
            Rule(r"stage(\d)_block(\d+)/conv(\d)/conv", "layer{1}.{2-1}.conv{3}"),
            Rule(r"stage(\d)_block(\d+)/conv(\d)/bn", "layer{1}.{2-1}.bn{3}"),
            Rule(projection + "conv", f"layer{{1}}.{{2-1}}.downsample.{shortcut}"),
            Rule(projection + "bn", f"layer{{1}}.{{2-1}}.downsample.{shortcut + 1}"),
            # Neither library has these modules: the first name is ours, the second
            # mmcv's.
            Rule(r"stage(\d)_block(\d+)/resize", "layer{1}.{2-1}.resize"),
            Rule(
                r"stage(\d)_block(\d+)/conv2/conv/offset",
                "layer{1}.{2-1}.conv2.conv_offset",
                begins_at_zero=True,
            ),
            Rule(attention + "reduce/conv", "layer{1}.{2-1}.se.fc1"),
            Rule(attention + "expand/conv", "layer{1}.{2-1}.se.fc2"),
            Rule("head", "fc"),
        )
    )


_RESNET = _resnet(shortcut=0)
_RESNET_D = _resnet(shortcut=1)  # The pooling comes first.


_LAB_RESNET = Dialect(
    (
        Rule("conv1/conv", "enc.net.0"),
        Rule("conv1/bn", "enc.net.1"),
        # The stem's pooling comes first in the first stage's sequence.
        Rule(r"stage1_block(\d+)/conv(\d)/conv", "conv2_x.{1}.net.{2-1}.net.0"),
        Rule(r"stage1_block(\d+)/conv(\d)/bn", "conv2_x.{1}.net.{2-1}.net.1"),
        Rule(r"stage1_block(\d+)/shortcut/conv", "conv2_x.{1}.shortcut"),
        Rule(
            r"stage(\d)_block(\d+)/conv(\d)/conv", "conv{1+1}_x.{2-1}.net.{3-1}.net.0"
        ),
        Rule(r"stage(\d)_block(\d+)/conv(\d)/bn", "conv{1+1}_x.{2-1}.net.{3-1}.net.1"),
        Rule(r"stage(\d)_block(\d+)/shortcut/conv", "conv{1+1}_x.{2-1}.shortcut"),
        Rule(r"stage(\d)_block(\d+)/resize", "conv{1+1}_x.{2-1}.resize"),
        Rule("head", "fc"),
    ),
    stems=("conv1/conv",),
)


@family(
    r"(se)?resnet\d+|resnet50_gn|resnet\d+_dcn(v2)?|(se)?resnext\d+_.*|wide_resnet\d+_2"
)
def resnet(name: str) -> tuple[Dialect, ...]:
    """Torchvision's and timm's names; weights with a pooled shortcut are read too."""
    del name
    return _RESNET, _RESNET_D


@family(r"resnet\d+d")
def resnet_d(name: str) -> tuple[Dialect, ...]:
    """Timm's names."""
    del name
    return _RESNET_D, _RESNET


@family("lab_resnet34")
def lab_resnet(name: str) -> tuple[Dialect, ...]:
    """The exercise's names."""
    del name
    return (_LAB_RESNET,)
