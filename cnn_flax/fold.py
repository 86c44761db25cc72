"""Folding each BatchNorm into the convolution before it, for inference."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from cnn_flax.analysis.jaxpr import check_module
from cnn_flax.layers import BatchNorm, Conv, DeformConv

__all__ = ["fold_batch_norm"]

_Path = tuple[str, ...]


def fold_batch_norm(
    model: nn.Module, variables: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """Folds each BatchNorm into the convolution whose output it normalises.

    With running statistics a BatchNorm is `y * factor + shift`, where `factor` is
    `scale / sqrt(var + epsilon)` and `shift` is `bias - mean * factor`. The kernel, and
    the bias if there is one, are multiplied by the factor; the BatchNorm keeps the
    shift as its `bias`, and loses `scale` and statistics. A norm of anything other than
    a convolution's output stays unchanged: in a DenseNet those of concatenated outputs,
    before the layers' first convolutions, in the transitions and at the end.

    Args:
      model: one of the registry.
      variables: its variables.

    Returns:
      A model and its variables. In evaluation its logits equal those of `model` up to
      rounding. It cannot be trained.

    Raises:
      TypeError: if `model` is not a module.
    """
    check_module(model)
    params: dict[_Path, Any] = {**traverse_util.flatten_dict(variables["params"])}
    statistics: dict[_Path, Any] = {
        **traverse_util.flatten_dict(variables.get("batch_stats", {}))
    }
    for norm, (conv, epsilon) in _pairs(model).items():
        if (*norm, "scale") not in params:
            continue  # It is folded already.
        mean, var = (statistics.pop((*norm, name)) for name in ("mean", "var"))
        factor = params.pop((*norm, "scale")) * jax.lax.rsqrt(var + epsilon)
        kernel = params[(*conv, "kernel")]
        params[(*conv, "kernel")] = kernel * factor.reshape(1, 1, 1, -1)
        if (*conv, "bias") in params:
            params[(*conv, "bias")] *= factor
        params[(*norm, "bias")] -= mean * factor
    folded = {
        **variables,
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(statistics),
    }
    return model, folded


def _pairs(model: nn.Module) -> dict[_Path, tuple[_Path, float]]:
    """From each BatchNorm's path to the convolution before it, and the epsilon."""
    outputs: dict[int, tuple[Any, _Path]] = {}
    pairs = {}

    def watch(call, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and isinstance(module, BatchNorm):
            _, path = outputs.get(id(args[0]), (None, None))
            if path is not None:
                pairs[module.path] = (path, module.epsilon)
        y = call(*args, **kwargs)
        if isinstance(module, Conv | DeformConv):
            outputs[id(y)] = (y, module.path)  # Holding y keeps its id unique.
        return y

    with nn.intercept_methods(watch):
        # Initialisation calls all modules, including those used only in training.
        jax.eval_shape(
            lambda images: model.init(jax.random.key(0), images),
            jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32),
        )
    return pairs
