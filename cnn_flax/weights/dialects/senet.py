"""The legacy SENets. timm's `seresnet*` and `seresnext*` have ResNet's names."""

from cnn_flax.weights.dialects.base import Dialect, Rule, family

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


@family(r"legacy_se.*")
def legacy_senet(name: str) -> tuple[Dialect, ...]:
    """Timm's names."""
    del name
    return (_LEGACY_SENET,)
