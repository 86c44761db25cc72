"""Pooling with the paddings that the published nets use."""

import jax
import jax.numpy as jnp
from flax import linen as nn

__all__ = ["avg_pool", "global_avg_pool", "max_pool"]


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Largest value of each window: `[N, H, W, C] -> [N, H', W', C]`.

    Args:
      x: `[N, H, W, C]`.
      window: height and width of the window, in pixels.
      stride: step between windows, in pixels.
      padding: pixels of minus infinity on each side.

    Returns:
      `[N, H', W', C]` with `H' = (H + 2 * padding - window) // stride + 1`.
    """
    pad = (padding, padding)
    return nn.max_pool(x, (window, window), (stride, stride), (pad, pad))


def avg_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Mean of each window, the last ones cut at the border (torch's `ceil_mode`).

    Args:
      x: `[N, H, W, C]`.
      window: height and width of the window, in pixels; not below `stride`.
      stride: step between windows, in pixels.

    Returns:
      `[N, ceil(H / stride), ceil(W / stride), C]` where `window == stride`; a window
      that hangs over the border is the mean of what lies inside.
    """
    pad = tuple((0, -(size - window) % stride) for size in x.shape[1:3])
    return nn.avg_pool(
        x, (window, window), (stride, stride), pad, count_include_pad=False
    )


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over the image, in float32 or wider: `[N, H, W, C] -> [N, C]`."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.promote_types(jnp.float32, x.dtype))
