"""The layer that gives the logits."""

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

__all__ = ["dense_init", "linear_head"]

# As torch's `Linear` draws its weights: uniform in +-sqrt(1 / fan in).
dense_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def linear_head(
    num_classes: int, dtype: Dtype, kernel_init: Initializer = dense_init
) -> nn.Dense:
    """The dense layer "head", `[N, C] -> [N, num_classes]`, in float32 or wider.

    Call it in a compact method.

    Args:
      num_classes: number of outputs.
      dtype: compute dtype of the network's body.
      kernel_init: initializer of the kernel.
    """
    wide = jnp.promote_types(jnp.float32, dtype)
    return nn.Dense(
        num_classes, dtype=wide, param_dtype=wide, kernel_init=kernel_init, name="head"
    )
