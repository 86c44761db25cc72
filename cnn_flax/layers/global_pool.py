"""Pooling of a network's last map to one vector per image."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnn_flax.layers.arguments import check_maps
from cnn_flax.layers.module import Module
from cnn_flax.layers.pooling import global_avg_pool

__all__ = ["GeM", "Pooling", "global_pool"]

Pooling = Literal["avg", "max", "avgmax", "gem"]


def global_pool(name: Pooling) -> Callable[[jax.Array], jax.Array]:
    """The pooling of that name, `[N, H, W, C] -> [N, C]`, in float32 or wider.

    Call it in a compact method: `gem` is a layer, "global_pool".

    Args:
      name: `avg`, the mean; `max`, the maximum; `avgmax`, the mean of these two; or
        `gem`, see `GeM`. The first three are timm's.
    """
    if name == "avg":
        return global_avg_pool
    if name == "max":
        return _global_max_pool
    if name == "avgmax":
        return lambda x: (global_avg_pool(x) + _global_max_pool(x)) / 2
    return GeM(name="global_pool")


def _global_max_pool(x: jax.Array) -> jax.Array:
    check_maps(x)
    return jnp.max(x, axis=(1, 2)).astype(jnp.promote_types(jnp.float32, x.dtype))


class GeM(Module):
    """Generalized mean: `mean(x ** p) ** (1 / p)` over the image, p is learned.

    1 is the mean, and infinity the maximum. Radenovic et al. 2018, "Fine-tuning CNN
    image retrieval with no human annotation", https://arxiv.org/abs/1711.02512,
    equation 3, with one p for all channels.

    Attributes:
      p_init: the initial p, above 0.
      eps: smaller activations count as this one, above 0.
    """

    p_init: float = 3.0
    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C] -> [N, C]`, in float32 or wider."""
        check_maps(x)
        wide = jnp.promote_types(jnp.float32, x.dtype)
        p = self.param("p", nn.initializers.constant(self.p_init), (), wide)
        powers = jnp.maximum(x.astype(wide), self.eps) ** p
        return jnp.mean(powers, axis=(1, 2)) ** (1 / p)
