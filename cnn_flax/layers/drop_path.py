"""Stochastic depth: residual branches are dropped as a whole, image by image.

Huang et al. 2016, "Deep networks with stochastic depth",
https://arxiv.org/abs/1603.09382.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from cnn_flax.layers.arguments import check_rate
from cnn_flax.layers.module import Module

__all__ = ["DropPath"]


class DropPath(Module):
    """Zeroes an image's branch with probability `rate`, else scales it by 1/(1 - rate).

    Each image has its own key, derived from its position in the global batch, so that
    its draw does not depend on the number of devices. The key comes from the collection
    "drop_path" if `apply` is given one, else from "dropout".

    Attributes:
      rate: probability of dropping, in [0, 1).
      axis_name: the mapped axis that the batch is split over under `jax.pmap` or
        `jax.shard_map`; None where the layer sees the whole batch.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """`[N, ...] -> [N, ...]`.

        Raises:
          ValueError: if `rate` is outside [0, 1).
        """
        check_rate("drop_path_rate", self.rate)
        if deterministic or self.rate == 0:
            return x
        key = self.make_rng("drop_path" if self.has_rng("drop_path") else "dropout")
        position = jnp.arange(x.shape[0])
        if self.axis_name is not None:
            position += lax.axis_index(self.axis_name) * x.shape[0]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, position)
        keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - self.rate))(keys)
        keep = keep.reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))
