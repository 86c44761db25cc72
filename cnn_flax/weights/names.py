"""torch's names of our parameters: one table a family and dialect.

A rule pairs a regular expression over the path of one of our modules with the name that
torch gives it, where `{1}` is the expression's first group and `{2-1}` its second less
one (our blocks count from 1, torch's from 0). Rules are only read from our names to
torch's; the way back is to ask for the names of all parameters that a model has.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cnn_flax.models.vgg import STAGE_SIZES
from cnn_flax.weights.errors import WeightsError

__all__ = ["Dialect", "Rule", "dialects", "rule_of"]

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


class Rule(NamedTuple):
    """How one kind of module is called in torch.

    Attributes:
      path: regular expression over our path of the module, such as "conv1/bn".
      torch: torch's name of it, with numbers for the expression's groups.
      flattened: height and width of the map that torch's dense layer takes flattened,
        where we flatten channels last or have a convolution; None: no such layer.
      begins_at_zero: whether weights may lack all modules of this rule, which are zero
        then: what a net adds to the one that it builds on.
    """

    path: str
    torch: str
    flattened: tuple[int, int] | None = None
    begins_at_zero: bool = False


@dataclasses.dataclass(frozen=True)
class Dialect:
    """The names that one library gives to the modules of one family.

    Attributes:
      rules: the first one that fits a path names it.
      stems: our paths of the convolution that takes the images, one of which a model
        has.
      head: our path of the layer that gives the logits.
      optional: fields of the model that are false where weights lack some modules, and
        the beginning of those modules' names, ours and torch's.
    """

    rules: tuple[Rule, ...]
    stems: tuple[str, ...] = ("conv1/conv", "conv1/conv1/conv")
    head: str = "head"
    optional: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _resnet(shortcut: int) -> Dialect:
    """The ResNets of torchvision and timm.

    Args:
      shortcut: index of the convolution in a projecting shortcut's sequence.
    """
    projection = r"stage(\d)_block(\d+)/shortcut/"
    return Dialect(
        (
            Rule("conv1/conv", "conv1"),
            Rule("conv1/bn", "bn1"),
            # A stem of three is one sequence, but for its last norm.
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
            # Neither library has these modules: one name is ours, one is mmcv's.
            Rule(r"stage(\d)_block(\d+)/resize", "layer{1}.{2-1}.resize"),
            Rule(
                r"stage(\d)_block(\d+)/conv2/conv/offset",
                "layer{1}.{2-1}.conv2.conv_offset",
                begins_at_zero=True,
            ),
            Rule("head", "fc"),
        )
    )


_RESNET = _resnet(shortcut=0)
_RESNET_D = _resnet(shortcut=1)  # The pooling comes first.

_LAB_RESNET = Dialect(
    (
        Rule("conv1/conv", "enc.net.0"),
        Rule("conv1/bn", "enc.net.1"),
        # In the first stage's sequence, the stem's pooling comes first.
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

# No library has the net of 2012; it takes the names of the other.
_ALEXNET = Dialect(
    (
        Rule("layer1/conv", "features.0"),
        Rule("layer2/conv", "features.3"),
        Rule("layer3/conv", "features.6"),
        Rule("layer4/conv", "features.8"),
        Rule("layer5/conv", "features.10"),
        Rule("layer6", "classifier.1", flattened=(6, 6)),
        Rule("layer7", "classifier.4"),
        Rule("head", "classifier.6"),
    ),
    stems=("layer1/conv",),
)


def _vgg(stage_sizes: Sequence[int], batch_norm: bool) -> tuple[Dialect, Dialect]:
    """The VGGs of torchvision, whose classifier is dense, and of timm."""
    features, index = [], 0
    for i, size in enumerate(stage_sizes, 1):
        for j in range(1, size + 1):
            features.append(Rule(f"stage{i}_conv{j}/conv", f"features.{index}"))
            if batch_norm:
                features.append(Rule(f"stage{i}_conv{j}/bn", f"features.{index + 1}"))
            index += 3 if batch_norm else 2
        index += 1  # The pooling.
    torchvision = (
        Rule("fc6", "classifier.0", flattened=(7, 7)),
        Rule("fc7", "classifier.3", flattened=(1, 1)),
        Rule("head", "classifier.6", flattened=(1, 1)),
    )
    timm = (
        Rule("fc6", "pre_logits.fc1"),
        Rule("fc7", "pre_logits.fc2"),
        Rule("head", "head.fc", flattened=(1, 1)),
    )
    stems = ("stage1_conv1/conv",)
    return (
        Dialect((*features, *torchvision), stems),
        Dialect((*features, *timm), stems),
    )


# No library has the paper's net; it takes the names of the other.
_GOOGLENET = Dialect(
    (
        Rule(r"(conv\d)/(conv|bn)", "{1}.{2}"),
        Rule(r"(inception\d\w)/branch1/(conv|bn)", "{1}.branch1.{2}"),
        Rule(
            r"(inception\d\w)/branch(\d)_conv(\d)/(conv|bn)", "{1}.branch{2}.{3-1}.{4}"
        ),
        # The branch's pooling comes first.
        Rule(r"(inception\d\w)/branch4/(conv|bn)", "{1}.branch4.1.{2}"),
        Rule(r"(aux\d)/conv/(conv|bn)", "{1}.conv.{2}"),
        Rule(r"(aux\d)/fc1", "{1}.fc1", flattened=(4, 4)),
        Rule(r"(aux\d)/fc2", "{1}.fc2"),
        Rule("head", "fc"),
    ),
    stems=("conv1/conv",),
    optional={"aux_logits": "aux"},
)

# Regular expression over a model's name, and its dialects: all are read, the first is
# written.
_FAMILIES = (
    ("lab_resnet34", (_LAB_RESNET,)),
    (r"resnet\d+d", (_RESNET_D, _RESNET)),
    (
        r"resnet\d+(_dcn(v2)?)?|resnext\d+_.*|wide_resnet\d+_2",
        (_RESNET, _RESNET_D),
    ),
    (r"alexnet(_lrn)?", (_ALEXNET,)),
    *((f"vgg{depth}", _vgg(sizes, False)) for depth, sizes in STAGE_SIZES.items()),
    *((f"vgg{depth}_bn", _vgg(sizes, True)) for depth, sizes in STAGE_SIZES.items()),
    (r"googlenet(_lrn)?", (_GOOGLENET,)),
)


def dialects(name: str) -> tuple[Dialect, ...]:
    """The dialects that a model's weights come in; the first is the one we write.

    Raises:
      WeightsError: if there is none.
    """
    for pattern, found in _FAMILIES:
        if re.fullmatch(pattern, name):
            return found
    raise WeightsError(f"No torch names are known for the model {name!r}.")


def rule_of(dialect: Dialect, path: str) -> tuple[str, Rule]:
    """The name in torch of a parameter of ours, and the rule that gives it.

    Raises:
      WeightsError: if no rule fits.
    """
    module, _, leaf = path.rpartition("/")
    for rule in dialect.rules:
        match = re.fullmatch(rule.path, module)
        if match:
            return f"{_fill(rule.torch, match)}.{_LEAVES.get(leaf, leaf)}", rule
    raise WeightsError(f"No torch name is known for the parameter {path!r}.")


def _fill(template: str, match: re.Match[str]) -> str:
    def number(field: re.Match[str]) -> str:
        group, offset = match[int(field[1])], field[2]
        return str(int(group) + int(offset)) if offset else group

    return re.sub(r"\{(\d)([+-]\d)?\}", number, template)
