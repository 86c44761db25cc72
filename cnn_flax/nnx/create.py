"""Builds the NNX modules from the registered Linen models."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from cnn_flax import registry, weights
from cnn_flax.nnx.module import LinenNode

__all__ = ["create_model", "from_linen", "load_pretrained"]


def create_model(
    name: str, *, rngs: nnx.Rngs, in_channels: int = 3, **fields: Any
) -> LinenNode:
    """Builds a model with initial parameters, in evaluation mode.

    Args:
      name: one of `cnn_flax.list_models()`.
      rngs: draws the parameters, from its `params`, and later the noise of training,
        from its `dropout`.
      in_channels: channels of the images.
      **fields: as `cnn_flax.create_model` takes them.

    Raises:
      UnknownModelError: if there is no such model.
      TypeError: if the model has no such field.
    """
    model = registry.create_model(name, **fields)
    size = registry.registration(name).image_size
    images = jnp.zeros((1, size, size, in_channels))
    return from_linen(model, jax.jit(model.init)(rngs.params(), images), rngs)


def load_pretrained(
    name: str, source: Any = None, *, rngs: nnx.Rngs | None = None, **options: Any
) -> LinenNode:
    """Builds a model with weights, in evaluation mode.

    Args:
      name: one of `cnn_flax.list_models()`.
      source: as `cnn_flax.load_pretrained` takes it.
      rngs: draws the noise of training, from its `dropout`.
      **options: as `cnn_flax.load_pretrained` takes them.

    Raises:
      UnknownModelError: if there is no such model.
      WeightsError: if the source is missing, cannot be read, or does not fit.
    """
    return from_linen(*weights.load_pretrained(name, source, **options), rngs)


def from_linen(
    model: nn.Module, variables: Mapping[str, Any], rngs: nnx.Rngs | None = None
) -> LinenNode:
    """The NNX module of a Linen model with its variables, in evaluation mode."""
    return LinenNode(model, variables, rngs)
