"""The architectures, one file a paper; importing this registers them all."""

from cnn_flax.models import resnet

__all__ = ["resnet"]
