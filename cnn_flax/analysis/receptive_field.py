"""The receptive field of any array in a model: which pixels of the image it can see.

It is found from the traced program, so that it holds for every model, whatever its
branches; no weights are needed and nothing is compiled. Fields are those of Araujo,
Norris and Sim 2019, "Computing receptive fields of convolutional neural networks",
https://distill.pub/2019/computing-receptive-fields: size, stride and padding.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util
from flax.core import DenyList
from jax.extend import core

from cnn_flax.analysis.reach import Reach
from cnn_flax.analysis.trace import Independent, Seen, Unknown, Value, follow, image
from cnn_flax.registry import nearest

__all__ = [
    "ReceptiveField",
    "ReceptiveFieldError",
    "receptive_field",
    "receptive_fields",
]

Pair = tuple[float, float]


class ReceptiveFieldError(ValueError):
    """What an array sees cannot be told; the message says why."""


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """Which pixels a map's positions see, each attribute as (vertical, horizontal).

    Position p sees the pixels `p * stride - padding` to `p * stride - padding + size -
    1`, of which some may lie outside the image.

    Attributes:
      name: of the map in its model.
      size: pixels that a position sees; `math.inf` behind a global pooling. Where
        positions differ, as behind an upsampling, that of the largest.
      stride: pixels from one position's field to the next one's; where an array has no
        positions left, that of the map which it was made of.
      padding: pixels that the first position's field lies outside the image.
      data_dependent: whether a deformable convolution lies between: it looks where the
        image tells it, and the numbers are those that it has undeformed.
    """

    name: str
    size: Pair
    stride: Pair
    padding: Pair
    data_dependent: bool = False

    def __str__(self) -> str:
        if self.size == (math.inf, math.inf):
            size = "infinite (it sees the whole image, as by global pooling)"
        else:
            size = f"{_times(self.size)} px"
        if self.data_dependent:
            size = f"data-dependent (deformable); undeformed {size}"
        text = f"{self.name}: {size}, stride {_times(self.stride)}"
        if math.inf in self.padding:
            return text
        return f"{text}, padding {_times(self.padding)}"


def _times(pair: Pair) -> str:
    vertical, horizontal = ("infinite" if v == math.inf else f"{v:g}" for v in pair)
    return vertical if vertical == horizontal else f"{vertical} x {horizontal}"


def receptive_field(
    model: nn.Module | Callable[..., Any],
    image_size: int | tuple[int, int],
    at: str | None = None,
    *,
    ignore_global: bool = False,
    channels: int = 3,
    **options: Any,
) -> ReceptiveField:
    """Which pixels a map of a model sees.

    Where a global pooling enters, as in squeeze and excitation or in the head, that is
    the whole image, whatever its size: the field is infinite. A pooling window or
    kernel that happens to cover a map is a window like others.

    Args:
      model: a `flax.linen.Module` that takes images `[N, H, W, C]`, ours or another; or
        a function of the images that returns an array or a dictionary of arrays.
      image_size: of the images, in pixels: one number or (height, width). "SAME"
        padding depends on it.
      at: which array. In a module, a value that it sows ("stage3") or the output of a
        module inside ("stage3_block2/conv1"), "output" being its own; in a function, a
        key of what it returns. None: the last of these that is still a map.
      ignore_global: whether gates from global poolings are left out, so that a net with
        squeeze and excitation has the field of the net without it.
      channels: of the images.
      **options: further arguments of the model's call, such as `train=False`.

    Returns:
      The field; it prints as a sentence.

    Raises:
      ReceptiveFieldError: if there is no array `at` (names the nearest ones), if it
        does not depend on the image, or if an operation before it has no rule.
    """
    arrays = _trace(model, image_size, ignore_global, channels, options)
    if at is None:
        at = _last_map(arrays)
    if at not in arrays:
        raise ReceptiveFieldError(
            f"There is no {at!r} in the model. {nearest(at, arrays)} "
            f"It has: {_some(arrays)}."
        )
    value = arrays[at].value
    if isinstance(value, Unknown):
        raise ReceptiveFieldError(
            f"What {at!r} sees cannot be told: before it stands the operation "
            f"{value.operation}."
        )
    if isinstance(value, Independent):
        raise ReceptiveFieldError(f"{at!r} does not depend on the image.")
    return _field(at, value)


def receptive_fields(
    model: nn.Module | Callable[..., Any],
    image_size: int | tuple[int, int],
    *,
    ignore_global: bool = False,
    channels: int = 3,
    **options: Any,
) -> dict[str, ReceptiveField]:
    """The fields of all arrays in a model that have one, in the program's order.

    Arguments are those of `receptive_field`, and the names those that it takes.
    """
    arrays = _trace(model, image_size, ignore_global, channels, options)
    return {
        name: _field(name, array.value)
        for name, array in arrays.items()
        if isinstance(array.value, Seen)
    }


class _Array(NamedTuple):
    """An array of the program: what it sees, and the line that makes it."""

    value: Value
    line: int
    rank: int

    @property
    def is_map(self) -> bool:
        if isinstance(self.value, Seen):
            return all(reach.walks for reach in self.value.reaches)
        return isinstance(self.value, Unknown) and self.rank > 2


def _trace(model, image_size, ignore_global, channels, options) -> dict[str, _Array]:
    """The named arrays of a model, in the order in which they are made."""
    height, width = _checked_size(image_size)
    images = jax.ShapeDtypeStruct((1, height, width, channels), np.float32)
    if isinstance(model, nn.Module):
        key = jax.random.key(0)
        init = partial(model.init, {"params": key, "dropout": key}, **options)
        variables = jax.eval_shape(init, images)
        function = partial(_intermediates, model, options)
    else:
        variables, function = {}, partial(_results, model, options)
    program, shapes = jax.make_jaxpr(function, return_shape=True)(variables, images)
    arguments = [
        *[Independent()] * len(jax.tree.leaves(variables)),
        image(images.shape),
    ]
    values = follow(program, arguments, ignore_global=ignore_global)
    lines = {
        variable: i
        for i, eqn in enumerate(program.jaxpr.eqns)
        for variable in eqn.outvars
    }
    arrays = [
        (name, _Array(value, _line(variable, lines), len(variable.aval.shape)))
        for name, value, variable in zip(
            sorted(shapes), values, program.jaxpr.outvars, strict=True
        )
    ]
    return dict(sorted(arrays, key=lambda pair: pair[1].line))


def _line(variable, lines):
    return -1 if isinstance(variable, core.Literal) else lines.get(variable, -1)


def _checked_size(image_size) -> tuple[int, int]:
    is_pair = isinstance(image_size, Sequence) and len(image_size) == 2
    size = tuple(image_size) if is_pair else (image_size, image_size)
    if not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(
            f"image_size is one number of pixels or (height, width), got {image_size}."
        )
    return size


def _intermediates(model, options, variables, images) -> dict[str, jax.Array]:
    """All that a module sows, and what the modules inside return, by name."""
    _, state = model.apply(
        variables,
        images,
        mutable=DenyList("params"),
        capture_intermediates=True,
        **options,
    )
    named = {}
    for path, calls in traverse_util.flatten_dict(state["intermediates"]).items():
        name = "/".join(part for part in path if part != "__call__") or "output"
        calls = calls[0] if isinstance(calls, tuple) and len(calls) == 1 else calls
        named |= _leaves(name, calls)
    return named


def _results(function, options, variables, images) -> dict[str, jax.Array]:
    """What a function returns, by name."""
    del variables
    results = function(images, **options)
    if not isinstance(results, dict):
        return _leaves("output", results)
    return {k: v for key in results for k, v in _leaves(key, results[key]).items()}


def _leaves(name, tree) -> dict[str, jax.Array]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    paths = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves]
    return {
        f"{name}/{path}" if path else name: leaf
        for path, (_, leaf) in zip(paths, leaves, strict=True)
    }


def _last_map(arrays) -> str:
    maps = [name for name, array in arrays.items() if array.is_map]
    if not maps:
        raise ReceptiveFieldError(f"No array is a map. There are: {_some(arrays)}.")
    last = max(arrays[name].line for name in maps)
    # Of several names for one array, "stage4" tells more than "stage4_block3/bn".
    names = [name for name in maps if arrays[name].line == last]
    return min(names, key=lambda name: (name.count("/"), len(name)))


def _some(arrays) -> str:
    """The names that are nearest to the top."""
    top = [name for name in arrays if "/" not in name]
    return ", ".join(top if top else arrays)


def _field(name: str, value: Seen) -> ReceptiveField:
    pairs = zip(*(_extent(name, reach) for reach in value.reaches), strict=True)
    size, stride, padding = pairs
    deformed = any(reach.deformed for reach in value.reaches)
    return ReceptiveField(name, size, stride, padding, deformed)


def _extent(name: str, reach: Reach) -> tuple[float, float, float]:
    """Size, stride and padding along one axis of the image."""
    positions = [axis for axis, step in enumerate(reach.steps) if step]
    if not positions:
        positions = [axis for axis, step in enumerate(reach.steps) if step is None]
    others = tuple(a for a in range(len(reach.steps)) if a not in positions)
    low, high = reach.low.min(axis=others), reach.high.max(axis=others)
    size = np.max(high - low) + 1
    if size < 1:
        raise ReceptiveFieldError(f"{name!r} sees nothing but padding.")
    step = min((abs(s) for s in reach.steps if s), default=reach.scale)
    return _number(size), _number(step), _number(-low.flat[0])


def _number(value: float | Fraction) -> float:
    """An int where it is one."""
    value = float(value)
    return int(value) if value.is_integer() else value
