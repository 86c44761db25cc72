"""RegNet."""

from cnn_flax.weights.dialects.base import Dialect, Rule, family

_MODULES = {"conv1": "f.a", "conv2": "f.b", "conv3": "f.c", "downsample": "proj"}


@family(r"regnet_y_\w+")
def regnet(name: str) -> tuple[Dialect, ...]:
    """Torchvision's names."""
    del name
    rules = [
        Rule("stem_conv/conv", "stem.0"),
        Rule("stem_conv/bn", "stem.1"),
        Rule("head", "fc"),
    ]
    path, torch = r"stage(\d+)_block(\d+)/", "trunk_output.block{1}.block{1}-{2-1}."
    for module, entry in _MODULES.items():
        rules.append(Rule(f"{path}{module}/conv", f"{torch}{entry}.0"))
        rules.append(Rule(f"{path}{module}/bn", f"{torch}{entry}.1"))
    rules.append(Rule(path + "squeeze_excite/reduce/conv", torch + "f.se.fc1"))
    rules.append(Rule(path + "squeeze_excite/expand/conv", torch + "f.se.fc2"))
    return (Dialect(tuple(rules), stems=("stem_conv/conv",), library="torchvision"),)
