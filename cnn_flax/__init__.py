"""Convolutional image classifiers in JAX and Flax, exact to the published weights."""

from cnn_flax import analysis, augment, layers, losses, models, weights
from cnn_flax.analysis import feature_info, features, summary
from cnn_flax.registry import create_model, list_models, model_info
from cnn_flax.weights import load_pretrained, preprocess

__version__ = "0.1.0"

__all__ = [
    "analysis",
    "augment",
    "create_model",
    "feature_info",
    "features",
    "layers",
    "list_models",
    "load_pretrained",
    "losses",
    "model_info",
    "models",
    "preprocess",
    "summary",
    "weights",
]
