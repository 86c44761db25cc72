"""Deformable convolution: the kernel's taps sample where learned offsets send them.

- v1: Dai, Qi, Xiong, Li, Zhang, Hu and Wei 2017, "Deformable convolutional networks",
  https://arxiv.org/abs/1703.06211, section 2.1: each tap has an offset.
- v2: Zhu, Hu, Lin and Dai 2019, "Deformable ConvNets v2: more deformable, better
  results", https://arxiv.org/abs/1811.11168, section 3.2: each tap has a mask as well.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer
from jax import core, lax

from cnn_flax.layers.arguments import check_least_size, whole_number, whole_pair
from cnn_flax.layers.conv import Conv, fan_out_normal
from cnn_flax.layers.cpu.convolution import has_symbolic_size
from cnn_flax.layers.module import Module
from cnn_flax.layers.sampling import read_bilinear

__all__ = ["DeformConv", "deform_conv2d"]

Pair = tuple[int, int]


def deform_conv2d(
    x: jax.Array,
    offset: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    feature_groups: int = 1,
    offset_groups: int = 1,
) -> jax.Array:
    """Convolution whose taps sample the image at learned offsets.

    `y[p] = bias + sum over k of weight[k] . (mask[p, k] * x(p * stride - padding +
    k * dilation + offset[p, k]))`, where `x` between pixels is bilinear and the pixels
    outside the image are zero. Same values and gradients as torchvision's, which has
    channels first.

    Positions are float32, or `offset`'s dtype where that is wider; the sum over the
    taps is float32 or wider too. Only one tap's samples are in memory at a time, also
    in the backward pass.

    Args:
      x: `[N, H, W, C]`.
      offset: `[N, H', W', offset_groups * kh * kw * 2]` in pixels; the last axis is
        ordered by offset group, tap (row by row), (dy, dx).
      weight: `[kh, kw, C / feature_groups, features]`.
      bias: `[features]`, or None.
      mask: `[N, H', W', offset_groups * kh * kw]`, in the same order; None: 1 (v1).
      stride: step between output positions, in pixels: one number or (vertical,
        horizontal).
      padding: zeros on each side of the image: one number or (vertical, horizontal).
      dilation: step between the kernel's taps: one number or (vertical, horizontal).
      feature_groups: number of groups of channels that do not see each other.
      offset_groups: number of groups of input channels with offsets of their own.

    Returns:
      `[N, H', W', features]` with `H' = (H + 2 * padding - dilation * (kh - 1) - 1) //
      stride + 1`, in the wider dtype of `x` and `weight`.

    Raises:
      ValueError: if a shape does not fit the others, or a number is out of range.

    Example:
      >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
      >>> right = jnp.broadcast_to(jnp.array([0.0, 1.0]), (1, 1, 3, 2))  # (dy, dx)
      >>> kernel = jnp.ones((1, 1, 1, 1))
      >>> cnn_flax.layers.deform_conv2d(x, right, kernel).ravel().tolist()
      [2.0, 3.0, 0.0]
    """
    geometry = _Geometry(
        _pair("stride", stride, least=1),
        _pair("padding", padding, least=0),
        _pair("dilation", dilation, least=1),
        whole_number("feature_groups", feature_groups, least=None),
        whole_number("offset_groups", offset_groups, least=None),
    )
    _check_channels(x, offset, weight, *geometry[3:])
    if has_symbolic_size(x):
        check_least_size("Sampled maps", x.shape[1:3], 2)
    size = _output_size(x.shape[1:3], weight.shape[:2], geometry)
    taps = geometry.offset_groups * weight.shape[0] * weight.shape[1]
    expected = (x.shape[0], *size, 2 * taps)
    _check_shape("offset", offset, expected, "offset_groups * kh * kw * 2")
    if mask is not None:
        expected = (x.shape[0], *size, taps)
        _check_shape("mask", mask, expected, "offset_groups * kh * kw")
    if bias is not None and bias.shape != weight.shape[3:]:
        raise ValueError(
            f"bias has shape {bias.shape}, but weight {weight.shape} has "
            f"{weight.shape[3]} features."
        )
    return _operator(geometry)(x, offset, weight, bias, mask)


class DeformConv(Module):
    """Deformable convolution with a branch that computes offsets and masks.

    The branch is a plain convolution with the same input and geometry, in float32 or
    wider. It is initialised to zero: a new layer equals the plain convolution with its
    kernel, or half of it where it is modulated, as the masks begin at sigmoid(0).

    Parameters are those of `Conv`, and under `offset` the branch's: `kernel`
    `[kh, kw, C, offset_groups * kh * kw * (3 if modulated else 2)]`, all offsets before
    all masks in the order of `deform_conv2d`, and `bias`.

    Attributes:
      features: number of output channels.
      kernel_size: (vertical, horizontal), in pixels.
      strides: one number or (vertical, horizontal).
      padding: zeros on each side of the image: one number or (vertical, horizontal).
      kernel_dilation: step between the kernel's taps: one number or (vertical,
        horizontal).
      feature_group_count: number of groups of channels that do not see each other.
      offset_groups: number of groups of input channels with offsets of their own.
      modulated: whether each tap has a mask in (0, 1) as well (v2).
      use_bias: whether to add a bias.
      dtype: dtype of the computation; None infers it from input and parameters.
      param_dtype: dtype of the parameters.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    kernel_dilation: int | tuple[int, int] = 1
    feature_group_count: int = 1
    offset_groups: int = 1
    modulated: bool = False
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    kernel_init: Initializer = fan_out_normal
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C] -> [N, H', W', features]`.

        Raises:
          ValueError: if `x` is not of rank 4, or the groups do not divide the channels.
        """
        taps = self.offset_groups * self.kernel_size[0] * self.kernel_size[1]
        branch = Conv(
            (3 if self.modulated else 2) * taps,
            self.kernel_size,
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
            dtype=jnp.promote_types(
                jnp.float32, x.dtype if self.dtype is None else self.dtype
            ),
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.zeros_init(),
            name="offset",
        )(x)
        offset, mask = jnp.split(branch, [2 * taps], axis=-1)
        kernel = self.param(
            "kernel",
            self.kernel_init,
            (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features),
            self.param_dtype,
        )
        bias = None
        if self.use_bias:
            bias = self.param(
                "bias", self.bias_init, (self.features,), self.param_dtype
            )
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return deform_conv2d(
            x,
            offset,
            kernel,
            bias,
            nn.sigmoid(mask) if self.modulated else None,
            stride=self.strides,
            padding=self.padding,
            dilation=self.kernel_dilation,
            feature_groups=self.feature_group_count,
            offset_groups=self.offset_groups,
        )


def _pair(name, value, least) -> Pair:
    try:
        return whole_pair(name, value, least)
    except ValueError:
        raise ValueError(
            f"{name} is one number or (vertical, horizontal), each at least {least}; "
            f"got {value}."
        ) from None


def _check_channels(x, offset, weight, feature_groups, offset_groups):
    for name, array, layout in [
        ("x", x, "[N, H, W, C]"),
        ("offset", offset, "[N, H', W', offset_groups * kh * kw * 2]"),
        ("weight", weight, "[kh, kw, C / feature_groups, features]"),
    ]:
        if array.ndim != 4:
            raise ValueError(f"{name} is {layout}, got shape {array.shape}.")
    channels, features = x.shape[3], weight.shape[3]
    if feature_groups < 1 or channels % feature_groups or features % feature_groups:
        raise ValueError(
            f"feature_groups={feature_groups} must divide the {channels} channels of x "
            f"{x.shape} and the {features} features of weight {weight.shape}."
        )
    if weight.shape[2] * feature_groups != channels:
        raise ValueError(
            f"weight {weight.shape} takes {weight.shape[2]} channels per group, but x "
            f"{x.shape} has {channels} in {feature_groups} group(s)."
        )
    if offset_groups < 1 or channels % offset_groups:
        raise ValueError(
            f"offset_groups={offset_groups} must divide the {channels} channels of x "
            f"{x.shape}."
        )


def _output_size(size, kernel_size, geometry):
    output = tuple(
        (n + 2 * padding - dilation * (k - 1) - 1) // stride + 1
        for n, k, stride, padding, dilation in zip(
            size, kernel_size, *geometry[:3], strict=True
        )
    )
    if any(core.max_dim(n, 1) != n for n in output):
        raise ValueError(
            f"A kernel of {kernel_size} with dilation {geometry.dilation} does not fit "
            f"into an image of {size} with padding {geometry.padding}."
        )
    return output


def _check_shape(name, array, expected, meaning):
    if array.shape != expected:
        raise ValueError(
            f"{name} has shape {array.shape}, expected {expected}: "
            f"[N, H', W', {meaning}]."
        )


class _Geometry(NamedTuple):
    """The operator's arguments other than arrays."""

    stride: Pair
    padding: Pair
    dilation: Pair
    feature_groups: int
    offset_groups: int

    @property
    def name(self) -> str:
        """Such as "deform_conv2d_stride1x1_padding1x1_dilation1x1"."""
        pairs = zip(self._fields[:3], self[:3], strict=True)
        return "_".join(
            ["deform_conv2d", *(f"{field}{a}x{b}" for field, (a, b) in pairs)]
        )


@functools.cache
def _operator(geometry: _Geometry) -> Callable[..., jax.Array]:
    """The operator as one call in a traced program, whose name gives the geometry.

    Code that reads traced programs, such as the receptive field analysis, need not look
    inside.
    """

    def operator(x, offset, weight, bias, mask):
        y = _convolve(x, offset, weight, mask, geometry)
        y = y if bias is None else y + bias.reshape(1, 1, 1, -1)
        return y.astype(jnp.result_type(x, weight))

    operator.__name__ = geometry.name
    return jax.jit(operator)


def _convolve(x, offset, weight, mask, geometry):
    """The sum over the taps, in float32 or wider."""
    n, height, width, channels = x.shape
    kh, kw, _, features = weight.shape
    dtype = jnp.result_type(x, weight)

    # `[N, H * W, C']` for each offset group. N stays a separate axis, so that each
    # device gathers only from its own images.
    pixels = jnp.split(
        x.reshape(n, height * width, channels), geometry.offset_groups, axis=2
    )
    y, x = _positions(offset, (kh, kw), geometry)
    if mask is not None:
        (mask,) = _by_tap(mask, geometry.offset_groups, kh * kw)
    kernels = weight.reshape(kh * kw, *weight.shape[2:])

    def sample(pixels, y, x, scale):
        return read_bilinear(pixels, (height, width), y, x, scale)

    # The checkpoint makes the backward pass sample again: no tap's samples are saved.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add_tap(total, tap):
        y, x, scale, kernel = tap
        samples = [
            jax.vmap(sample)(group, y[g], x[g], None if scale is None else scale[g])
            for g, group in enumerate(pixels)
        ]
        joined = jnp.concatenate(samples, axis=2).astype(dtype)
        return total + _product(joined, kernel, geometry.feature_groups), None

    wide = jnp.promote_types(jnp.float32, dtype)
    total = jnp.zeros((n, y.shape[3], features), wide)
    total, _ = lax.scan(add_tap, total, (y, x, mask, kernels))
    return total.reshape(*offset.shape[:3], features)


def _positions(offset, kernel_size, geometry):
    """Vertical and horizontal sampling positions of the taps, in `_by_tap`'s layout."""
    dtype = jnp.promote_types(jnp.float32, offset.dtype)
    taps = kernel_size[0] * kernel_size[1]
    positions = offset.shape[1] * offset.shape[2]
    # Constants, which XLA does not recompute for each tap; symbolic sizes have none.
    arange = np.arange if isinstance(positions, int) else jnp.arange
    rows, columns = (
        arange(size)[None] * stride - padding + dilation * np.arange(k)[:, None]
        for size, k, stride, padding, dilation in zip(
            offset.shape[1:3], kernel_size, *geometry[:3], strict=True
        )
    )
    grids = jnp.broadcast_arrays(rows[:, None, :, None], columns[None, :, None, :])
    shifts = _by_tap(offset.astype(dtype), geometry.offset_groups, taps)
    return [
        grid.astype(dtype).reshape(taps, 1, 1, positions) + shift
        for grid, shift in zip(grids, shifts, strict=True)
    ]


def _by_tap(array, groups, taps):
    """`[N, H', W', groups * taps * D] -> [D, taps, groups, N, H' * W']`."""
    n, height, width, size = array.shape
    depth = size // (groups * taps)
    array = array.reshape(n, height * width, groups, taps, depth)
    return array.transpose(4, 3, 2, 0, 1)


def _product(sample, kernel, groups):
    """`[N, P, C]` times `[C / groups, features]`, in float32 or wider."""
    wide = jnp.promote_types(jnp.float32, sample.dtype)
    if groups == 1:
        return jnp.matmul(sample, kernel, preferred_element_type=wide)
    n, positions, _ = sample.shape
    channels, features = kernel.shape
    product = jnp.einsum(
        "npgc,cgf->npgf",
        sample.reshape(n, positions, groups, channels),
        kernel.reshape(channels, groups, features // groups),
        preferred_element_type=wide,
    )
    return product.reshape(n, positions, features)
