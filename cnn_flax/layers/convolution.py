"""The convolution as XLA has it, which every formulation of it must equal."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax import lax

__all__ = ["Geometry", "convolve"]


class Geometry(NamedTuple):
    """Where a kernel is laid on an image, along its (vertical, horizontal) axis.

    Attributes:
      strides: step between the kernel's positions, in pixels.
      padding: pixels of zeros (before, behind) the image.
      dilation: step between the kernel's taps, in pixels.
    """

    strides: tuple[int, int] = (1, 1)
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)


def convolve(
    x: jax.Array, kernel: jax.Array, geometry: Geometry, groups: int = 1
) -> jax.Array:
    """`[N, H, W, C] -> [N, H', W', features]`, kernel `[kh, kw, C / groups, features]`.

    Args:
      x: `[N, H, W, C]`.
      kernel: `[kh, kw, C / groups, features]`, of the dtype of `x`.
      geometry: strides, padding and dilation.
      groups: number of groups of channels that do not see each other.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
