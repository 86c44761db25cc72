"""The architectures, one file per paper; importing this package registers them."""

from cnn_flax.models import (
    alexnet,
    convnext,
    dcn,
    densenet,
    efficientnet,
    efficientnet_v2,
    googlenet,
    mobilenet,
    mobilenet_v3,
    regnet,
    resnet,
    senet,
    shufflenet_v2,
    vgg,
)

__all__ = [
    "alexnet",
    "convnext",
    "dcn",
    "densenet",
    "efficientnet",
    "efficientnet_v2",
    "googlenet",
    "mobilenet",
    "mobilenet_v3",
    "regnet",
    "resnet",
    "senet",
    "shufflenet_v2",
    "vgg",
]
