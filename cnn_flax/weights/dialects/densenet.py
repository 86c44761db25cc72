"""DenseNet."""

from cnn_flax.weights.dialects.base import Dialect, Rule, family


def _densenet(dot: str) -> Dialect:
    """Names in torchvision and timm.

    Args:
      dot: what precedes the number of a layer's modules: nothing, or a dot in the
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


_DENSENETS = (_densenet(""), _densenet("."))


@family(r"densenet\d+")
def densenet(name: str) -> tuple[Dialect, ...]:
    """Torchvision's and timm's names."""
    del name
    return _DENSENETS
