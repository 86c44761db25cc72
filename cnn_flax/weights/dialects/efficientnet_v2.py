"""EfficientNetV2."""

from typing import Any

from cnn_flax.registry import create_model
from cnn_flax.weights.dialects.base import Dialect, Rule, family


@family("efficientnet_v2_[sml]")
def efficientnet_v2(name: str) -> tuple[Dialect, ...]:
    """Torchvision's names."""
    model: Any = create_model(name)
    fused, stages = len(model.fused_stages), len(model.stage_sizes)
    rules = [
        Rule("conv_stem/conv", "features.0.0"),
        Rule("conv_stem/bn", "features.0.1"),
        Rule("conv_head/conv", f"features.{stages + 1}.0"),
        Rule("conv_head/bn", f"features.{stages + 1}.1"),
        Rule("head", "classifier.1"),
    ]
    for i in range(1, stages + 1):
        modules = ["expand", "depthwise", "squeeze_excite", "project"]
        if i <= fused:
            modules = ["fused", "project"]
        for j, module in enumerate(modules):
            path = rf"stage{i}_block(\d+)/{module}/"
            torch = f"features.{i}.{{1-1}}.block.{j}."
            rules += [
                Rule(path + "conv", torch + "0"),
                Rule(path + "bn", torch + "1"),
                Rule(path + "reduce/conv", torch + "fc1"),
                Rule(path + "expand/conv", torch + "fc2"),
            ]
    return (Dialect(tuple(rules), stems=("conv_stem/conv",), library="torchvision"),)
