"""Layers as every network configures them: compute dtype, parameter dtype, statistics.

`dtype` is the compute dtype of a network's body. Parameters are float32, or `dtype`
where that is wider, so that a network can run in float64 throughout.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers.batch_norm import BatchNorm

__all__ = ["configure", "configure_group_norm", "configure_norm"]


def configure(
    layer: Callable[..., nn.Module], dtype: Dtype, **fields: Any
) -> Callable[..., Any]:
    """A constructor of `layer` with the network's dtypes.

    Args:
      layer: a module class with the fields `dtype` and `param_dtype`.
      dtype: dtype of the computation.
      **fields: further fields to set.
    """
    param_dtype = jnp.promote_types(jnp.float32, dtype)
    return partial(layer, dtype=dtype, param_dtype=param_dtype, **fields)


def configure_norm(
    dtype: Dtype, momentum: float, axis_name: str | None, *, epsilon: float = 1e-5
) -> Callable[..., Any]:
    """A constructor of `BatchNorm` with the network's dtypes and statistics.

    Args:
      dtype: dtype of the computation.
      momentum: decay of the running statistics.
      axis_name: mapped axis to take batch statistics over, or None.
      epsilon: what is added to the variance.
    """
    return configure(
        BatchNorm, dtype, momentum=momentum, axis_name=axis_name, epsilon=epsilon
    )


def configure_group_norm(dtype: Dtype, groups: int) -> Callable[..., Any]:
    """A constructor of `flax.linen.GroupNorm`, called as `configure_norm`'s.

    Wu and He 2018, "Group normalization", https://arxiv.org/abs/1803.08494. It has no
    running statistics.

    Args:
      dtype: dtype of the computation.
      groups: number of groups of channels.
    """
    return partial(_group_norm, configure(nn.GroupNorm, dtype), groups)


def _group_norm(layer: Callable[..., Any], groups: int, **fields: Any) -> Any:
    norm = layer(groups, epsilon=1e-5, **fields)
    return lambda x, *, use_running_average: norm(x)
