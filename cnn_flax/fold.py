"""A model for inference: each BatchNorm in the convolution before it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from cnn_flax.layers import BatchNorm, Conv, DeformConv

__all__ = ["fold_batch_norm"]

_Path = tuple[str, ...]


def fold_batch_norm(
    model: nn.Module, variables: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """Folds each BatchNorm into the convolution whose output it normalises.

    With running statistics a BatchNorm is `y * factor + shift`, where `factor` is
    `scale / sqrt(var + epsilon)` and `shift` is `bias - mean * factor`. The kernel, and
    the bias where there is one, take the factor; the BatchNorm adds the shift, as its
    `bias`, and loses `scale` and statistics. What normalises anything but a convolution
    stays as it is: in a DenseNet all norms of several layers' outputs, before the
    layers' first convolutions, in the transitions and at the end.

    Args:
      model: one of the registry.
      variables: its variables.

    Returns:
      A model and its variables, whose logits in evaluation are those of `model` up to
      rounding. It cannot be trained.
    """
    params: dict[_Path, Any] = {**traverse_util.flatten_dict(variables["params"])}
    statistics: dict[_Path, Any] = {
        **traverse_util.flatten_dict(variables.get("batch_stats", {}))
    }
    for norm, (conv, epsilon) in _pairs(model).items():
        if (*norm, "scale") not in params:
            continue  # It is folded.
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
    """By each BatchNorm's path: the convolution before it, and the norm's epsilon."""
    made: dict[int, tuple[Any, _Path]] = {}
    pairs = {}

    def watch(call, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and isinstance(module, BatchNorm):
            _, path = made.get(id(args[0]), (None, None))
            if path is not None:
                pairs[module.path] = (path, module.epsilon)
        y = call(*args, **kwargs)
        if isinstance(module, Conv | DeformConv):
            made[id(y)] = (y, module.path)  # Held, so that its id stays its own.
        return y

    with nn.intercept_methods(watch):
        # In initialization all modules are called, also those of training alone.
        jax.eval_shape(
            lambda images: model.init(jax.random.key(0), images),
            jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32),
        )
    return pairs
