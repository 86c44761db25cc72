"""Sampling locations of deformable convolutions in the image.

Dai, Qi, Xiong, Li, Zhang, Hu and Wei 2017, "Deformable convolutional networks",
https://arxiv.org/abs/1703.06211, figure 6: three levels of 3x3 taps sample 9^3 = 729
points of the image per position.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from cnn_flax.analysis.jaxpr import check_module
from cnn_flax.analysis.named_arrays import (
    Model,
    ReceptiveFieldError,
    checked_position,
    find_array,
    position_axes,
    trace_arrays,
)
from cnn_flax.analysis.receptive_field import ReceptiveField, field_of
from cnn_flax.layers.arguments import whole_number, whole_pair
from cnn_flax.layers.deform_conv import DeformConv

__all__ = ["deformable_sampling_points"]


class _Layer(NamedTuple):
    """A deformable convolution in one forward pass.

    Attributes:
      name: of its output in the model.
      kernel_size: (vertical, horizontal).
      stride: step between positions, (vertical, horizontal).
      padding: zeros on each side, (vertical, horizontal).
      dilation: step between taps, (vertical, horizontal).
      offsets: `[H', W', groups, taps, 2]` in positions of its input.
    """

    name: str
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    offsets: np.ndarray

    def taps(self, position: Sequence[int]) -> np.ndarray:
        """`[groups * taps, 2]`: where a position reads its input."""
        kernel = np.indices(self.kernel_size).reshape(2, -1).T
        start = np.multiply(position, self.stride) - self.padding
        offsets = self.offsets[position[0], position[1]]
        return (start + kernel * self.dilation + offsets).reshape(-1, 2)

    def pixels(self, points: np.ndarray, field: ReceptiveField) -> np.ndarray:
        """Centres of the fields of points of the input, given the output's field.

        An undeformed position lies at the centre of its taps.
        """
        step = np.divide(field.stride, self.stride)
        taps = (np.array(self.kernel_size) - 1) * self.dilation / 2 - self.padding
        return _centre(field) + (points - taps) * step

    def positions(self, pixels: np.ndarray, field: ReceptiveField) -> np.ndarray:
        """Positions of the layer's output whose fields are centred on those pixels."""
        last = np.array(self.offsets.shape[:2]) - 1
        points = (pixels - _centre(field)) / field.stride
        return np.rint(points).astype(int).clip(0, last)


def _centre(field) -> np.ndarray:
    """The pixel at the centre of the field of position 0."""
    return (np.array(field.size) - 1) / 2 - field.padding


def deformable_sampling_points(
    model: Model,
    variables: Any,
    image: jax.Array,
    at: str | None = None,
    *,
    position: Sequence[int] | None = None,
    levels: int = 1,
    **options: Any,
) -> np.ndarray:
    """Points of the image that a position samples through deformable convolutions.

    Each tap of the last layer samples a point of the layer's input, which is converted
    to a pixel: the centre of the receptive field there. The taps of the layer before
    continue from its position nearest to that pixel, and so on. Kernels between the
    layers count by their centre only.

    Args:
      model: a module with `DeformConv` layers, such as "resnet50_dcn".
      variables: of the model.
      image: float `[H, W, C]`, as the model takes it.
      at: name of a map, as for `receptive_field`; None: the last one.
      position: (vertical, horizontal) in the map; None: the middle.
      levels: number of deformable layers to follow: the last ones up to the map.
      **options: further arguments of the model's call.

    Returns:
      `[points, 2]`: (vertical, horizontal) pixels, possibly outside the image: `9 **
      levels` of them with 3x3 kernels and one offset group.

    Raises:
      TypeError: if `model` is not a module.
      ReceptiveFieldError: if there is no such map, or fewer than `levels` layers up to
        it.
      ValueError: if `image`, `position` or `levels` is invalid.
    """
    check_module(model)
    if np.ndim(image) != 3:
        raise ValueError(f"image must be [H, W, C], got shape {np.shape(image)}.")
    levels = whole_number("levels", levels, least=None)
    if levels < 1:
        raise ValueError(f"levels must be 1 or more, got {levels}.")
    arrays = trace_arrays(
        model,
        image.shape[:2],
        ignore_global=True,
        channels=image.shape[2],
        options=options,
    )
    name, seen = find_array(arrays, at)
    axes, shape = position_axes(name, seen), arrays[name].shape
    start = checked_position(position, [shape[axis] for axis in axes])
    field = field_of(name, seen)
    pixels = _centre(field) + np.multiply([start], field.stride)
    before = list(arrays)[: list(arrays).index(name) + 1]
    layers = _layers(model, variables, image, options)
    layers = [layer for layer in layers if layer.name in before]
    if levels > len(layers):
        raise ReceptiveFieldError(
            f"There are {len(layers)} deformable convolutions up to {name!r}, fewer "
            f"than levels={levels}."
        )
    for layer in layers[: -levels - 1 : -1]:
        field = field_of(*find_array(arrays, layer.name))
        positions = layer.positions(pixels, field)
        points = np.concatenate([layer.taps(p) for p in positions])
        pixels = layer.pixels(points, field)
    return pixels


def _layers(model, variables, image, options) -> list[_Layer]:
    """The deformable layers of a model, in the order of the forward pass."""
    modules, branches = {}, {}

    def record_module(call, args, kwargs, context):
        if isinstance(context.module, DeformConv) and context.method_name == "__call__":
            modules["/".join(context.module.path)] = context.module
        return call(*args, **kwargs)

    @jax.jit
    def run(variables, images):
        with nn.intercept_methods(record_module):
            _, state = model.apply(
                variables,
                images,
                mutable=["intermediates"],
                capture_intermediates=_is_branch,
                **options,
            )
        return state

    state = run(variables, image[None])
    for path in modules:
        node = state["intermediates"]
        for part in [*path.split("/"), "offset"]:
            node = node[part]
        (branches[path],) = node["__call__"]
    return [
        _layer(path, module, np.asarray(branches[path][0], float))
        for path, module in modules.items()
    ]


def _is_branch(module, method):
    """Whether this is the call of a deformable convolution's offset branch."""
    return method == "__call__" and module.name == "offset"


def _layer(path, module, branch) -> _Layer:
    taps = module.kernel_size[0] * module.kernel_size[1]
    groups = module.offset_groups
    offsets = branch[..., : 2 * groups * taps]
    return _Layer(
        path,
        module.kernel_size,
        whole_pair("strides", module.strides),
        whole_pair("padding", module.padding, least=0),
        whole_pair("kernel_dilation", module.kernel_dilation),
        offsets.reshape(*offsets.shape[:2], groups, taps, 2),
    )
