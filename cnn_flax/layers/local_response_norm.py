"""Local response normalisation, which the nets before BatchNorm had.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional
neural networks", section 3.3,
https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cnn_flax.layers.arguments import check_floats, whole_number

__all__ = ["local_response_norm"]


def local_response_norm(
    x: jax.Array,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
) -> jax.Array:
    """Divides each channel by a power of the summed squares of neighbouring channels.

    `y[i] = x[i] / (k + alpha * sum_j x[j] ** 2) ** beta`, with j from `i - size // 2`
    to `i + (size - 1) // 2`, within the channels that exist. This is the paper's
    formula with its constants as defaults; torch's `LocalResponseNorm` divides `alpha`
    by `size`.

    Args:
      x: `[..., C]`, float.
      size: number of channels in the sum, the paper's n.
      alpha: weight of the sum.
      beta: the power.
      k: added to the weighted sum; above 0.

    Returns:
      An array of the shape and dtype of `x`, computed in float32 or wider.

    Raises:
      ValueError: if `size` is not a whole number of at least 1 or `k` is not above 0.
      TypeError: if `x` is not of floats.
    """
    check_floats(x)
    size = whole_number("size", size, least=None)
    if size < 1:
        raise ValueError(f"size must be at least 1 channel, got {size}.")
    if k <= 0:
        raise ValueError(f"k must be above 0, or zeros are divided by 0; got {k}.")
    wide = x.astype(jnp.promote_types(jnp.float32, x.dtype))
    channels = x.shape[-1]
    around = [(0, 0)] * (x.ndim - 1) + [(size // 2, (size - 1) // 2)]
    squares = jnp.pad(wide**2, around)
    # XLA fuses a sum of slices into one loop, but not `reduce_window` on a CPU.
    total = sum(
        lax.slice_in_dim(squares, j, j + channels, axis=-1) for j in range(size)
    )
    return (wide * (k + alpha * total) ** -beta).astype(x.dtype)
