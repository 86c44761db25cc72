"""The gradient of max pooling."""

import jax
import jax.numpy as jnp
from jax import lax

from cnn_flax.layers.cpu.materialize import materialize_on_cpu

__all__ = ["max_pool_gradients"]


def max_pool_gradients(window, stride, padding, arguments, y, dy) -> tuple[jax.Array]:
    """Adds each window's cotangent to its first maximum, in row-major order.

    Args:
      window: height and width of the window, in pixels.
      stride: step between windows, in pixels.
      padding: pixels (before, after) the image, per axis.
      arguments: the image `[N, H, W, C]`, as a tuple of one.
      y: the result, `[N, H', W', C]`.
      dy: its cotangent.
    """
    (x,) = arguments
    dy = materialize_on_cpu(dy)  # It is read once per pixel of the window.
    low = jnp.full((), -jnp.inf, x.dtype)
    padded = lax.pad(x, low, [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)])
    zero = jnp.zeros((), x.dtype)
    found = jnp.zeros(y.shape, bool)
    total = jnp.zeros_like(padded)
    ends = [(n - 1) * stride + 1 for n in y.shape[1:3]]
    for row in range(window):
        for column in range(window):
            pixels = padded[
                :,
                row : row + ends[0] : stride,
                column : column + ends[1] : stride,
            ]
            is_first = (pixels == y) & ~found
            found |= is_first
            dilation = [
                (start, size - start - end, stride - 1)
                for start, size, end in zip(
                    (row, column), padded.shape[1:3], ends, strict=True
                )
            ]
            total += lax.pad(
                jnp.where(is_first, dy, 0), zero, [(0, 0, 0), *dilation, (0, 0, 0)]
            )
    (top, _), (left, _) = padding
    return (total[:, top : top + x.shape[1], left : left + x.shape[2]],)
