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

from cnn_flax.models import efficientnet
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
      library: the beginning of `PublishedWeights.source` of the weights that have these
        names; empty where several libraries have them.
    """

    rules: tuple[Rule, ...]
    stems: tuple[str, ...] = ("conv1/conv", "conv1/conv1/conv")
    head: str = "head"
    optional: Mapping[str, str] = dataclasses.field(default_factory=dict)
    library: str = ""


def _resnet(shortcut: int) -> Dialect:
    """The ResNets of torchvision and timm.

    Args:
      shortcut: index of the convolution in a projecting shortcut's sequence.
    """
    projection = r"stage(\d)_block(\d+)/shortcut/"
    attention = r"stage(\d)_block(\d+)/attention/"
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

_BLOCK = r"stage(\d)_block(\d+)/"
_LEGACY_SENET = Dialect(
    (
        Rule("conv1/(conv|bn)", "layer0.{1}1"),
        Rule(r"conv1/conv(\d)/(conv|bn)", "layer0.{2}{1}"),
        Rule(_BLOCK + r"conv(\d)/(conv|bn)", "layer{1}.{2-1}.{4}{3}"),
        Rule(_BLOCK + "shortcut/conv", "layer{1}.{2-1}.downsample.0"),
        Rule(_BLOCK + "shortcut/bn", "layer{1}.{2-1}.downsample.1"),
        Rule(_BLOCK + "attention/reduce/conv", "layer{1}.{2-1}.se_module.fc1"),
        Rule(_BLOCK + "attention/expand/conv", "layer{1}.{2-1}.se_module.fc2"),
        Rule("head", "last_linear"),
    )
)


def _densenet(dot: str) -> Dialect:
    """The DenseNets of torchvision and timm.

    Args:
      dot: what stands before the number of a layer's modules: nothing, or a dot in the
        files that torchvision publishes.
    """
    layer, torch = r"stage(\d)_layer(\d+)/", "features.denseblock{1}.denselayer{2}."
    return Dialect(
        (
            Rule("conv1/conv", "features.conv0"),
            Rule("conv1/bn", "features.norm0"),
            Rule(layer + r"conv(\d)", torch + f"conv{dot}{{3}}"),
            Rule(layer + r"bn(\d)", torch + f"norm{dot}{{3}}"),
            Rule(r"transition(\d)/conv", "features.transition{1}.conv"),
            Rule(r"transition(\d)/bn", "features.transition{1}.norm"),
            Rule("bn", "features.norm5"),
            Rule("head", "classifier"),
        ),
        stems=("conv1/conv",),
    )


def _efficientnet_torchvision() -> Dialect:
    rules = [
        Rule("conv_stem/conv", "features.0.0"),
        Rule("conv_stem/bn", "features.0.1"),
    ]
    for i in range(1, 8):
        modules = ["expand", "depthwise", "squeeze_excite", "project"]
        if i == 1:
            modules.remove("expand")
        for j, module in enumerate(modules):
            path = rf"stage{i}_block(\d+)/{module}/"
            torch = f"features.{i}.{{1-1}}.block.{j}."
            rules += [
                Rule(path + "conv", torch + "0"),
                Rule(path + "bn", torch + "1"),
                Rule(path + "reduce/conv", torch + "fc1"),
                Rule(path + "expand/conv", torch + "fc2"),
            ]
    rules += [
        Rule("conv_head/conv", "features.8.0"),
        Rule("conv_head/bn", "features.8.1"),
        Rule("head", "classifier.1"),
    ]
    return Dialect(tuple(rules), stems=("conv_stem/conv",), library="torchvision")


def _efficientnet_timm() -> Dialect:
    rules = [Rule("conv_stem/conv", "conv_stem"), Rule("conv_stem/bn", "bn1")]
    for i in range(1, 8):
        modules = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if i == 1:
            modules = {"depthwise": "conv_dw", "project": "conv_pw"}
        path, torch = rf"stage{i}_block(\d+)/", f"blocks.{i - 1}.{{1-1}}."
        for j, (module, conv) in enumerate(modules.items(), 1):
            rules.append(Rule(f"{path}{module}/conv", torch + conv))
            rules.append(Rule(f"{path}{module}/bn", f"{torch}bn{j}"))
        squeeze_excite = path + "squeeze_excite/(reduce|expand)/conv"
        rules.append(Rule(squeeze_excite, torch + "se.conv_{2}"))
    rules += [
        Rule("conv_head/conv", "conv_head"),
        Rule("conv_head/bn", "bn2"),
        Rule("head", "classifier"),
    ]
    return Dialect(tuple(rules), stems=("conv_stem/conv",), library="timm")


def _efficientnet_lite(stage_sizes: Sequence[int]) -> Dialect:
    """efficientnet_lite_pytorch's, which counts the blocks of all stages through."""
    rules = [Rule("conv_stem/conv", "_conv_stem"), Rule("conv_stem/bn", "_bn0")]
    for i in range(len(stage_sizes)):
        path = rf"stage{i + 1}_block(\d+)/"
        torch = f"_blocks.{{1{sum(stage_sizes[:i]) - 1:+d}}}."
        for j, module in enumerate(("expand", "depthwise", "project")):
            rules.append(Rule(f"{path}{module}/conv", f"{torch}_{module}_conv"))
            rules.append(Rule(f"{path}{module}/bn", f"{torch}_bn{j}"))
    rules += [
        Rule("conv_head/conv", "_conv_head"),
        Rule("conv_head/bn", "_bn1"),
        Rule("head", "_fc"),
    ]
    return Dialect(tuple(rules), stems=("conv_stem/conv",), library="PyPI")


_EFFICIENTNETS = (_efficientnet_torchvision(), _efficientnet_timm())

# Regular expression over a model's name, and its dialects: all are read, the first is
# written.
_FAMILIES = (
    ("lab_resnet34", (_LAB_RESNET,)),
    (r"resnet\d+d", (_RESNET_D, _RESNET)),
    (
        r"(se)?resnet\d+|resnet\d+_dcn(v2)?|(se)?resnext\d+_.*|wide_resnet\d+_2",
        (_RESNET, _RESNET_D),
    ),
    (r"alexnet(_lrn)?", (_ALEXNET,)),
    *((f"vgg{depth}", _vgg(sizes, False)) for depth, sizes in STAGE_SIZES.items()),
    *((f"vgg{depth}_bn", _vgg(sizes, True)) for depth, sizes in STAGE_SIZES.items()),
    (r"googlenet(_lrn)?", (_GOOGLENET,)),
    (r"densenet\d+", (_densenet(""), _densenet("."))),
    (r"legacy_se.*", (_LEGACY_SENET,)),
    (r"efficientnet_b\d", _EFFICIENTNETS),
    (r"tf_efficientnet_(b\d|l2)", _EFFICIENTNETS[1:]),
    *(
        (net.__name__, (*_EFFICIENTNETS[1:], _efficientnet_lite(net().stage_sizes)))
        for net in (
            efficientnet.tf_efficientnet_lite0,
            efficientnet.tf_efficientnet_lite1,
            efficientnet.tf_efficientnet_lite2,
            efficientnet.tf_efficientnet_lite3,
            efficientnet.tf_efficientnet_lite4,
        )
    ),
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

    return re.sub(r"\{(\d)([+-]\d+)?\}", number, template)
