"""VGG."""

from typing import Any

from cnn_flax.registry import create_model
from cnn_flax.weights.dialects.base import Dialect, Rule, family


@family(r"vgg\d+(_bn)?")
def vgg(name: str) -> tuple[Dialect, ...]:
    """Torchvision's names, whose classifier is dense, and timm's."""
    model: Any = create_model(name)
    features, index = [], 0
    for i, size in enumerate(model.stage_sizes, 1):
        for j in range(1, size + 1):
            features.append(Rule(f"stage{i}_conv{j}/conv", f"features.{index}"))
            if model.batch_norm:
                features.append(Rule(f"stage{i}_conv{j}/bn", f"features.{index + 1}"))
            index += 3 if model.batch_norm else 2
        index += 1  # The pooling.
    torchvision = (
        Rule("fc6", "classifier.0", flattened=(7, 7)),
        Rule("fc7", "classifier.3", flattened=(1, 1)),
        Rule("head", "classifier.6", flattened=(1, 1)),
    )
    timm = (
        Rule("fc6", "pre_logits.fc1"),
        Rule("fc7", "pre_logits.fc2"),
        Rule("head", "head.fc", flattened=(1, 1)),
    )
    stems = ("stage1_conv1/conv",)
    return (
        Dialect((*features, *torchvision), stems),
        Dialect((*features, *timm), stems),
    )
