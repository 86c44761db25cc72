"""Convolution of each channel for itself."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from cnn_flax.layers.by_platform import by_platform
from cnn_flax.layers.convolution import Geometry, convolve

__all__ = ["depthwise_conv"]


def depthwise_conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`[N, H, W, C] -> [N, H', W', C]` with a kernel `[kh, kw, 1, C]`.

    A CPU sums the image shifted to each tap, which XLA makes one loop of.
    """
    plain = partial(convolve, geometry=geometry, groups=x.shape[-1])
    on_cpu = partial(_sum_of_shifts, geometry=geometry)
    return by_platform(plain, on_cpu, partial(_gradients, geometry))(x, kernel)


def _sum_of_shifts(x, kernel, geometry):
    wide = jnp.promote_types(jnp.float32, x.dtype)
    taps = kernel.reshape(-1, 1, 1, 1, x.shape[-1]).astype(wide)
    shifts = _shifts(x.astype(wide), kernel, geometry)
    total = sum(shift * tap for shift, tap in zip(shifts, taps, strict=True))
    return jnp.asarray(total, x.dtype)


def _shifts(x, kernel, geometry):
    """What each tap sees, row by row: k * k times `[N, H', W', C]`."""
    padded = _padded(x, [(*pair, 0) for pair in geometry.padding])
    rows, columns = (
        [
            (tap * dilation, size - (taps - 1 - tap) * dilation, stride)
            for tap in range(taps)
        ]
        for taps, dilation, size, stride in zip(
            kernel.shape,
            geometry.dilation,
            padded.shape[1:3],
            geometry.strides,
            strict=False,
        )
    )
    return [
        padded[:, slice(*row), slice(*column)] for row in rows for column in columns
    ]


def _gradients(geometry, arguments, y, dy):
    del y
    x, kernel = arguments
    return (
        _input_gradient(x, kernel, dy, geometry),
        _kernel_gradient(x, kernel, dy, geometry),
    )


def _input_gradient(x, kernel, dy, geometry):
    """The flipped kernel's convolution of `dy`, spread out to the strides."""
    padding = []
    for axis, (stride, (before, _), dilation) in enumerate(zip(*geometry, strict=True)):
        reach = dilation * (kernel.shape[axis] - 1)
        low = reach - before
        spread = (dy.shape[axis + 1] - 1) * stride + 1
        padding.append((low, x.shape[axis + 1] + reach - low - spread, stride - 1))
    spread = _padded(dy, padding)
    return _sum_of_shifts(
        spread, kernel[::-1, ::-1], Geometry(dilation=geometry.dilation)
    )


def _kernel_gradient(x, kernel, dy, geometry):
    wide = jnp.promote_types(jnp.float32, x.dtype)
    products = [
        shift * dy.astype(wide) for shift in _shifts(x.astype(wide), kernel, geometry)
    ]
    # One pass over the pixels for all taps; the images are summed on their own, so that
    # there is work for all cores.
    sums = lax.reduce(
        products,
        [jnp.zeros((), wide)] * len(products),
        lambda a, b: [p + q for p, q in zip(a, b, strict=True)],
        (1, 2),
    )
    total = jnp.stack([image_sums.sum(0) for image_sums in sums])
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _padded(x, padding):
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, [(0, 0, 0), *padding, (0, 0, 0)])
