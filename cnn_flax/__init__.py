"""Convolutional image classifiers in JAX and Flax, exact to the published weights.

Importing this package imports neither JAX nor Flax: each name is loaded when it is
first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cnn_flax.faulty_fusion import switch_off_faulty_fusion

if TYPE_CHECKING:
    from cnn_flax import (
        analysis,
        augment,
        export,
        layers,
        losses,
        models,
        nnx,
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
    from cnn_flax.classifier import reset_classifier
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
    "nnx",
    "plot_receptive_field",
    "predict_fn",
    "preprocess",
    "programs",
    "publish",
    "receptive_field",
    "reset_classifier",
    "single_layer_receptive_field",
    "summary",
    "weights",
]

# The modules that define the names; the others are modules themselves.
_HOMES = {
    "create_model": "registry",
    "effective_receptive_field": "analysis",
    "feature_info": "analysis",
    "features": "analysis",
    "fold_batch_norm": "fold",
    "list_models": "registry",
    "load_pretrained": "weights",
    "model_info": "info",
    "plot_receptive_field": "analysis",
    "predict_fn": "prediction",
    "preprocess": "weights",
    "receptive_field": "analysis",
    "reset_classifier": "classifier",
    "single_layer_receptive_field": "analysis",
    "summary": "analysis",
}

switch_off_faulty_fusion()


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'cnn_flax' has no attribute {name!r}")
    module = importlib.import_module(f"cnn_flax.{_HOMES.get(name, name)}")
    value = getattr(module, name) if name in _HOMES else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
