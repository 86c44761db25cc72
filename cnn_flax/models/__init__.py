"""The architectures, one file a paper; importing this registers them all."""

from cnn_flax.models import (
    alexnet,
    dcn,
    densenet,
    efficientnet,
    googlenet,
    mobilenet,
    resnet,
    senet,
    vgg,
)

__all__ = [
    "alexnet",
    "dcn",
    "densenet",
    "efficientnet",
    "googlenet",
    "mobilenet",
    "resnet",
    "senet",
    "vgg",
]
