"""ConvNeXt."""

from cnn_flax.weights.dialects.base import Dialect, Rule, family

# Positions in torchvision's block; those between them have no parameters.
_BLOCK = {"depthwise": 0, "norm": 2, "expand": 3, "project": 5}


@family(r"convnext_\w+")
def convnext(name: str) -> tuple[Dialect, ...]:
    """Torchvision's names: stages at odd numbers, what is between them at even ones."""
    del name
    rules = [
        Rule("stem_conv", "features.0.0"),
        Rule("stem_norm", "features.0.1"),
        Rule("norm", "classifier.0"),
        Rule("head", "classifier.2"),
    ]
    for i in range(1, 5):
        block, torch = rf"stage{i}_block(\d+)", f"features.{2 * i - 1}.{{1-1}}"
        rules.append(Rule(block, torch))  # Its layer_scale.
        for module, position in _BLOCK.items():
            rules.append(Rule(f"{block}/{module}", f"{torch}.block.{position}"))
        rules.append(Rule(f"downsample{i}_norm", f"features.{2 * i - 2}.0"))
        rules.append(Rule(f"downsample{i}_conv", f"features.{2 * i - 2}.1"))
    return (Dialect(tuple(rules), stems=("stem_conv",), library="torchvision"),)
