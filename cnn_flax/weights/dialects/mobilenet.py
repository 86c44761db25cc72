"""MobileNetV2."""

from typing import Any

from cnn_flax.registry import create_model
from cnn_flax.weights.dialects.base import Dialect, Rule, family


@family("mobilenet_v2")
def mobilenet_v2(name: str) -> tuple[Dialect, ...]:
    """Torchvision's names, which number the blocks across all stages."""
    model: Any = create_model(name)
    rules = [
        Rule("conv_stem/conv", "features.0.0"),
        Rule("conv_stem/bn", "features.0.1"),
    ]
    blocks = 0
    for i, size in enumerate(model.stage_sizes, 1):
        path, torch = rf"stage{i}_block(\d+)/", f"features.{{1{blocks:+d}}}.conv."
        modules = ["expand", "depthwise"]
        if i == 1:
            modules.remove("expand")
        for j, module in enumerate(modules):
            rules.append(Rule(f"{path}{module}/conv", f"{torch}{j}.0"))
            rules.append(Rule(f"{path}{module}/bn", f"{torch}{j}.1"))
        # The projection has no activation, and so is no sequence of its own.
        rules.append(Rule(f"{path}project/conv", f"{torch}{len(modules)}"))
        rules.append(Rule(f"{path}project/bn", f"{torch}{len(modules) + 1}"))
        blocks += size
    rules += [
        Rule("conv_head/conv", f"features.{blocks + 1}.0"),
        Rule("conv_head/bn", f"features.{blocks + 1}.1"),
        Rule("head", "classifier.1"),
    ]
    return (Dialect(tuple(rules), stems=("conv_stem/conv",), library="torchvision"),)
