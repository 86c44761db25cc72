"""Weights as a folder of the Hugging Face Hub, for timm too where it has the net."""

from cnn_flax.publish.folder import PublishError, write_folder
from cnn_flax.publish.hub import push

__all__ = ["PublishError", "push", "write_folder"]
