"""Convolutional image classifiers in JAX and Flax, exact to the published weights."""

from cnn_flax import (
    analysis,
    augment,
    export,
    layers,
    losses,
    models,
    programs,
    publish,
    weights,
)
from cnn_flax.analysis import (
    effective_receptive_field,
    feature_info,
    features,
    plot_receptive_field,
    receptive_field,
    single_layer_receptive_field,
    summary,
)
from cnn_flax.faulty_fusion import switch_off_faulty_fusion
from cnn_flax.fold import fold_batch_norm
from cnn_flax.info import model_info
from cnn_flax.prediction import predict_fn
from cnn_flax.registry import create_model, list_models
from cnn_flax.weights import load_pretrained, preprocess

__version__ = "0.1.0"

__all__ = [
    "analysis",
    "augment",
    "create_model",
    "effective_receptive_field",
    "export",
    "feature_info",
    "features",
    "fold_batch_norm",
    "layers",
    "list_models",
    "load_pretrained",
    "losses",
    "model_info",
    "models",
    "plot_receptive_field",
    "predict_fn",
    "preprocess",
    "programs",
    "publish",
    "receptive_field",
    "single_layer_receptive_field",
    "summary",
    "weights",
]

switch_off_faulty_fusion()
