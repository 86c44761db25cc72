"""GoogLeNet."""

from cnn_flax.weights.dialects.base import Dialect, Rule, family

_GOOGLENET = Dialect(
    (
        Rule(r"(conv\d)/(conv|bn)", "{1}.{2}"),
        Rule(r"(inception\d\w)/branch1/(conv|bn)", "{1}.branch1.{2}"),
        Rule(
            r"(inception\d\w)/branch(\d)_conv(\d)/(conv|bn)", "{1}.branch{2}.{3-1}.{4}"
        ),
        # The branch's pooling comes first.
        Rule(r"(inception\d\w)/branch4/(conv|bn)", "{1}.branch4.1.{2}"),
        Rule(r"(aux\d)/conv/(conv|bn)", "{1}.conv.{2}"),
        Rule(r"(aux\d)/fc1", "{1}.fc1", flattened=(4, 4)),
        Rule(r"(aux\d)/fc2", "{1}.fc2"),
        Rule("head", "fc"),
    ),
    stems=("conv1/conv",),
    optional={"aux_logits": "aux"},
)


@family(r"googlenet(_lrn)?")
def googlenet(name: str) -> tuple[Dialect, ...]:
    """Torchvision's names; no library has the paper's net, which takes the same."""
    del name
    return (_GOOGLENET,)
