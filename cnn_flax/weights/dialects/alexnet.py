"""AlexNet."""

from cnn_flax.weights.dialects.base import Dialect, Rule, family

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


@family(r"alexnet(_lrn)?")
def alexnet(name: str) -> tuple[Dialect, ...]:
    """Torchvision's names; no library has the net of 2012, which takes the same."""
    del name
    return (_ALEXNET,)
