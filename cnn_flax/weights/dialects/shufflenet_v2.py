"""ShuffleNetV2."""

from cnn_flax.weights.dialects.base import Dialect, Rule, family


@family(r"shufflenet_v2_x\d_\d")
def shufflenet_v2(name: str) -> tuple[Dialect, ...]:
    """Torchvision's names, which number the stages as the paper does."""
    del name
    rules = [
        Rule("(conv1|conv5)/conv", "{1}.0"),
        Rule("(conv1|conv5)/bn", "{1}.1"),
        Rule("head", "fc"),
    ]
    # Position of each convolution in its branch; its norm follows.
    positions = {
        "shortcut_depthwise": "branch1.0",
        "shortcut": "branch1.2",
        "conv1": "branch2.0",
        "depthwise": "branch2.3",
        "conv2": "branch2.5",
    }
    for module, position in positions.items():
        branch, number = position.split(".")
        path, torch = rf"stage(\d+)_block(\d+)/{module}/", "stage{1+1}.{2-1}."
        rules.append(Rule(path + "conv", f"{torch}{position}"))
        rules.append(Rule(path + "bn", f"{torch}{branch}.{int(number) + 1}"))
    stems = ("conv1/conv",)
    return (Dialect(tuple(rules), stems, library="torchvision"),)
