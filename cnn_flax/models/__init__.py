"""The architectures, one file per paper; importing this package registers them."""

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
