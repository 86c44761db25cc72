"""MobileNetV3."""

from typing import Any

from cnn_flax.registry import create_model
from cnn_flax.weights.dialects.base import Dialect, Rule, family


@family("mobilenet_v3_(large|small)")
def mobilenet_v3(name: str) -> tuple[Dialect, ...]:
    """Torchvision's names, which number the blocks across all stages."""
    model: Any = create_model(name)
    rules = [
        Rule("conv_stem/conv", "features.0.0"),
        Rule("conv_stem/bn", "features.0.1"),
    ]
    blocks = 0
    for i, size in enumerate(model.stage_sizes):
        for j in range(size):
            blocks += 1
            modules = ["depthwise", "project"]
            if model.row(i, j).use_se:
                modules.insert(1, "squeeze_excite")
            if blocks > 1:  # The first block has its input's channels inside.
                modules.insert(0, "expand")
            for k, module in enumerate(modules):
                path = f"stage{i + 1}_block{j + 1}/{module}/"
                torch = f"features.{blocks}.block.{k}."
                rules += [
                    Rule(path + "conv", torch + "0"),
                    Rule(path + "bn", torch + "1"),
                    Rule(path + "reduce/conv", torch + "fc1"),
                    Rule(path + "expand/conv", torch + "fc2"),
                ]
    rules += [
        Rule("conv_head/conv", f"features.{blocks + 1}.0"),
        Rule("conv_head/bn", f"features.{blocks + 1}.1"),
        Rule("hidden", "classifier.0"),
        Rule("head", "classifier.3"),
    ]
    return (Dialect(tuple(rules), stems=("conv_stem/conv",), library="torchvision"),)
