"""EfficientNet."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from cnn_flax.registry import create_model
from cnn_flax.weights.dialects.base import Dialect, Rule, family


def _torchvision() -> Dialect:
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


def _timm() -> Dialect:
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


def _lite(stage_sizes: Sequence[int]) -> Dialect:
    """efficientnet_lite_pytorch's names, which number the blocks across all stages."""
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


_TORCHVISION, _TIMM = _torchvision(), _timm()


@family(r"efficientnet_b\d")
def efficientnet(name: str) -> tuple[Dialect, ...]:
    """Torchvision's and timm's names."""
    return _TORCHVISION, dataclasses.replace(_TIMM, twin=f"tf_{name}")


@family(r"tf_efficientnet_(b\d|l2)")
def tf_efficientnet(name: str) -> tuple[Dialect, ...]:
    """Timm's names. Ours pad as TensorFlow; PyTorch's own end at B7."""
    has_twin = re.fullmatch(r"tf_efficientnet_b[0-7]", name)
    return (
        dataclasses.replace(_TIMM, twin=name.removeprefix("tf_") if has_twin else ""),
    )


@family(r"tf_efficientnet_lite\d")
def tf_efficientnet_lite(name: str) -> tuple[Dialect, ...]:
    """Timm's names and efficientnet_lite_pytorch's."""
    model: Any = create_model(name)
    return _TIMM, _lite(model.stage_sizes)
