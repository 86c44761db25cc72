"""Sampling images at the positions of a grid, with the semantics of torch.

Jaderberg, Simonyan, Zisserman and Kavukcuoglu 2015, "Spatial transformer networks",
https://arxiv.org/abs/1506.02025, section 3.3.
"""

import jax
import jax.numpy as jnp
from jax import lax

from cnn_flax.layers.arguments import check_least_size
from cnn_flax.layers.cpu.convolution import has_symbolic_size
from cnn_flax.layers.sampling import read_bilinear, read_nearest

__all__ = ["grid_sample"]

_MODES = {"bilinear": read_bilinear, "nearest": read_nearest}
_PADDING_MODES = ("zeros", "border", "reflection")


def grid_sample(
    x: jax.Array,
    grid: jax.Array,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> jax.Array:
    """Samples each image at its own positions; torch's values and gradients.

    Positions are computed in float32, or `grid`'s dtype where that is wider.

    Args:
      x: float `[N, H, W, C]`.
      grid: float `[N, H', W', 2]`, the last axis (x, y): -1 is the left or upper end of
        the image, 1 the right or lower one.
      mode: "bilinear", or "nearest", which rounds halves to even and gives the grid no
        gradient.
      padding_mode: what lies outside the image: "zeros", the "border" pixel, or the
        image mirrored at its ends ("reflection").
      align_corners: whether the image ends at the centres of its outermost pixels
        instead of their outer edges.

    Returns:
      `[N, H', W', C]` in the dtype of `x`.

    Raises:
      ValueError: if there is no such mode, or a shape does not fit.
      TypeError: if `x` or `grid` are not floats.
    """
    for name, value, choices in [
        ("mode", mode, _MODES),
        ("padding_mode", padding_mode, _PADDING_MODES),
    ]:
        if value not in choices:
            raise ValueError(f"{name} is one of {', '.join(choices)}; got {value!r}.")
    if x.ndim != 4 or grid.ndim != 4 or (x.shape[0], 2) != grid.shape[::3]:
        raise ValueError(
            f"x is [N, H, W, C] and grid [N, H', W', 2]; got the shapes {x.shape} and "
            f"{grid.shape}."
        )
    for name, array in [("x", x), ("grid", grid)]:
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name} must have a float dtype, got {array.dtype}.")
    if has_symbolic_size(x):
        check_least_size("Sampled maps", x.shape[1:3], 2)

    n, height, width, channels = x.shape
    positions = grid.astype(jnp.promote_types(jnp.float32, grid.dtype))
    positions = positions.reshape(n, grid.shape[1] * grid.shape[2], 2)
    column, row = (
        _pixel(positions[..., axis], size, padding_mode, align_corners)
        for axis, size in enumerate((width, height))
    )

    def sample(pixels, y, x):
        return _MODES[mode](pixels, (height, width), y, x)

    y = jax.vmap(sample)(x.reshape(n, height * width, channels), row, column)
    return y.reshape(*grid.shape[:3], channels).astype(x.dtype)


def _pixel(position, size, padding_mode, align_corners):
    """From [-1, 1] to pixels, where 0 is the centre of the first one."""
    if align_corners:
        pixel = (position + 1) / 2 * (size - 1)
    else:
        pixel = ((position + 1) * size - 1) / 2
    if padding_mode == "reflection":
        low, span = (0, size - 1) if align_corners else (-0.5, size)
        pixel = _reflect(pixel, low, span)
    return pixel if padding_mode == "zeros" else _clamp(pixel, size - 1)


def _reflect(pixel, low, span):
    """Folds the axis into [low, low + span]."""
    if span == 0:
        return jnp.zeros_like(pixel)
    beyond = lax.rem(jnp.abs(pixel - low), jnp.full_like(pixel, 2 * span))
    return jnp.minimum(beyond, 2 * span - beyond) + low


def _clamp(pixel, last):
    # torch has gradient zero exactly at the border, `jnp.clip` half of the slope.
    inside = (pixel > 0) & (pixel < last)
    return jnp.where(inside, pixel, lax.stop_gradient(jnp.clip(pixel, 0, last)))
