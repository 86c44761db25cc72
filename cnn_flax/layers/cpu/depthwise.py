"""Depthwise convolution."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from cnn_flax.layers.cpu.convolution import Geometry, convolve, window_span
from cnn_flax.layers.cpu.dispatch import dispatch
from cnn_flax.layers.cpu.materialize import materialize_on_cpu

__all__ = ["depthwise_conv"]


def depthwise_conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`[N, H, W, C] -> [N, H', W', C]` with a kernel `[kh, kw, 1, C]`.

    A CPU sums the image shifted to each tap, which XLA fuses into one loop.
    """
    plain = partial(convolve, geometry=geometry, groups=x.shape[-1])
    on_cpu = partial(_sum_of_shifts, geometry=geometry)
    return dispatch(plain, on_cpu, partial(_gradients, geometry))(x, kernel)


def _sum_of_shifts(x, kernel, geometry):
    wide = jnp.promote_types(jnp.float32, x.dtype)
    taps = kernel.reshape(-1, 1, 1, 1, x.shape[-1]).astype(wide)
    shifts = _shifts(x.astype(wide), kernel, geometry)
    total = sum(shift * tap for shift, tap in zip(shifts, taps, strict=True))
    return jnp.asarray(total, x.dtype)


def _shifts(x, kernel, geometry):
    """The pixels that each tap sees, in row-major order: k * k of `[N, H', W', C]`."""
    padded = _padded(x, [(*pair, 0) for pair in geometry.padding])
    rows, columns = (
        [
            (tap * dilation, tap * dilation + span, stride)
            for span in [window_span(size, (taps - 1) * dilation + 1, stride)]
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
    dy = materialize_on_cpu(dy, kernel)
    return (
        _input_gradient(x, kernel, dy, geometry),
        _kernel_gradient(x, kernel, dy, geometry),
    )


def _input_gradient(x, kernel, dy, geometry):
    """Computed phase by phase: with strides, not every tap sees every pixel.

    Along an axis, tap t sees pixel `stride * m + phase` from the output position
    `m + (phase + padding - dilation * t) / stride`, where that is an integer.
    """
    (rows, top, height), (columns, left, width) = (
        _phases(x.shape[axis + 1], dy.shape[axis + 1], kernel.shape[axis], *of_axis)
        for axis, of_axis in enumerate(zip(*geometry, strict=True))
    )
    wide = jnp.promote_types(jnp.float32, x.dtype)
    padded = materialize_on_cpu(_padded(dy.astype(wide), [top, left]), kernel)
    taps = kernel[:, :, None, None].astype(wide)

    def phase(vertical, horizontal):
        total = jnp.zeros((x.shape[0], height, width, x.shape[-1]), wide)
        for t, row in vertical:
            for u, column in horizontal:
                shift = padded[:, row : row + height, column : column + width]
                total += taps[t, u] * shift
        return total

    phases = [jnp.stack([phase(r, c) for c in columns], 3) for r in rows]
    dx = jnp.stack(phases, 2).reshape(
        x.shape[0], height * len(rows), width * len(columns), x.shape[-1]
    )
    return dx[:, : x.shape[1], : x.shape[2]].astype(x.dtype)


def _phases(size, output_size, taps, stride, padding, dilation):
    """Along one axis, the taps of each phase and the output positions that they read.

    Args:
      size: pixels of the input.
      output_size: pixels of the output.
      taps: taps of the kernel.
      stride: step between the kernel's positions, in pixels.
      padding: pixels (before, after) the image.
      dilation: step between the kernel's taps, in pixels.

    Returns:
      For each phase, pairs of a tap and its first position in the padded output; the
      output's padding in `lax.pad`'s format; and the number of pixels per phase.
    """
    pixels = -(-size // stride)
    phases = []
    for phase in range(stride):
        offsets = [(t, phase + padding[0] - dilation * t) for t in range(taps)]
        phases.append([(t, o // stride) for t, o in offsets if o % stride == 0])
    starts = [start for phase in phases for _, start in phase]
    low, high = max(0, -min(starts)), max(0, pixels + max(starts) - output_size)
    return (
        [[(t, start + low) for t, start in phase] for phase in phases],
        (low, high, 0),
        pixels,
    )


def _kernel_gradient(x, kernel, dy, geometry):
    wide = jnp.promote_types(jnp.float32, x.dtype)
    padding = [(*pair, 0) for pair in geometry.padding]
    padded = materialize_on_cpu(_padded(x.astype(wide), padding), kernel)
    shifts = _shifts(padded, kernel, geometry._replace(padding=((0, 0), (0, 0))))
    products = [shift * dy.astype(wide) for shift in shifts]
    # One pass over the pixels for all taps. Each image is summed separately, so that
    # all cores have work.
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
