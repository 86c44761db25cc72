"""Weights: reading files, torch's names and layouts and back, published weights."""

from cnn_flax.published import PublishedWeights, published_weights
from cnn_flax.weights.convert import from_torch, to_torch
from cnn_flax.weights.errors import CheckpointError, WeightsError
from cnn_flax.weights.preprocessing import ImageError, preprocess
from cnn_flax.weights.pretrained import load_pretrained
from cnn_flax.weights.read import read_checkpoint

__all__ = [
    "CheckpointError",
    "ImageError",
    "PublishedWeights",
    "WeightsError",
    "from_torch",
    "load_pretrained",
    "preprocess",
    "published_weights",
    "read_checkpoint",
    "to_torch",
]
