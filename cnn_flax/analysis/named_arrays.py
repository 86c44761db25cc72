"""The arrays inside a model, by name, and what each one sees of the image."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util
from flax.core import DenyList
from jax.extend import core
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]

from cnn_flax.analysis.jaxpr import abstract_images
from cnn_flax.analysis.propagation import (
    Independent,
    Seen,
    Unknown,
    Value,
    image,
    propagate,
)
from cnn_flax.layers.arguments import is_sequence, whole_numbers
from cnn_flax.registry import nearest

__all__ = [
    "Array",
    "Model",
    "ReceptiveFieldError",
    "Trace",
    "arrays_of",
    "checked_position",
    "find_array",
    "named_arrays",
    "position_axes",
    "trace",
    "trace_arrays",
]

Model = nn.Module | Callable[..., Any]


class ReceptiveFieldError(ValueError):
    """A receptive field cannot be determined; the message says why."""


class Array(NamedTuple):
    """An array of the program: what it sees, the line that defines it, its shape."""

    value: Value
    line: int
    shape: tuple[int, ...]

    @property
    def is_map(self) -> bool:
        """Whether it has positions along both axes of the image, or may have."""
        if isinstance(self.value, Seen):
            return all(span.has_positions for span in self.value.spans)
        return isinstance(self.value, Unknown) and len(self.shape) > 2


def named_arrays(
    model: Model, options: dict[str, Any]
) -> Callable[[Any, jax.Array], dict[str, jax.Array]]:
    """Returns a function of variables and images that returns a model's arrays by name.

    For a module these are what it sows and what its submodules return, with "output"
    for its own result; for a function, what it returns.

    Args:
      model: a module, or a function of images.
      options: further arguments of its call.

    Raises:
      TypeError: if `model` is neither.
    """
    if isinstance(model, nn.Module):
        return partial(_intermediates, model, options)
    if not callable(model):
        raise TypeError(
            "model must be a flax.linen.Module or a function of images, got "
            f"{model!r}; create_model builds one from its name."
        )
    return partial(_results, model, options)


class Trace(NamedTuple):
    """A model's program, which returns its arrays by name.

    Attributes:
      program: of the leaves of the variables and the images, to the arrays.
      names: of the arrays that it returns, in their order.
      images: the abstract images.
    """

    program: ClosedJaxpr
    names: Sequence[str]
    images: jax.ShapeDtypeStruct


def trace(
    model: Model,
    images: jax.ShapeDtypeStruct,
    options: dict[str, Any],
    variables: Any = None,
) -> Trace:
    """Traces a model.

    Args:
      model: a module, or a function of images.
      images: abstract images.
      options: further arguments of its call.
      variables: of a module, abstract; None: those that it initializes.

    Raises:
      TypeError: if `model` is neither a module nor a function.
    """
    arrays = named_arrays(model, options)
    if not isinstance(model, nn.Module):
        variables = {}
    elif variables is None:
        key = jax.random.key(0)
        init = partial(model.init, {"params": key, "dropout": key}, **options)
        variables = jax.eval_shape(init, images)
    program, shapes = jax.make_jaxpr(arrays, return_shape=True)(variables, images)
    return Trace(program, sorted(shapes), images)


def trace_arrays(
    model: Model,
    image_size: int | Sequence[int],
    *,
    ignore_global: bool,
    channels: int,
    options: dict[str, Any],
) -> dict[str, Array]:
    """Returns what the arrays of a model see, by name, in the program's order.

    Arguments are those of `receptive_field`.

    Raises:
      TypeError: if `model` is neither a module nor a function.
      ValueError: if `image_size` is invalid.
    """
    images = abstract_images(image_size, channels)
    return arrays_of(trace(model, images, options), ignore_global=ignore_global)


def arrays_of(traced: Trace, *, ignore_global: bool) -> dict[str, Array]:
    """Returns what the arrays of a traced model see, as `trace_arrays` does."""
    program, names, images = traced
    variables = len(program.jaxpr.invars) - 1
    arguments = [*[Independent()] * variables, image(images.shape)]
    values = propagate(program, arguments, ignore_global=ignore_global)
    lines = {
        variable: i
        for i, eqn in enumerate(program.jaxpr.eqns)
        for variable in eqn.outvars
    }
    arrays = [
        (name, Array(value, _line(variable, lines), np.shape(variable.aval)))
        for name, value, variable in zip(
            names, values, program.jaxpr.outvars, strict=True
        )
    ]
    return dict(sorted(arrays, key=lambda pair: pair[1].line))


def find_array(arrays: dict[str, Array], at: str | None) -> tuple[str, Seen]:
    """Returns the name and value of an array; None: those of the last map.

    Raises:
      ReceptiveFieldError: if there is no such array, or what it sees is unknown.
    """
    at = _last_map(arrays) if at is None else at
    if at not in arrays:
        raise ReceptiveFieldError(
            f"The model has no array {at!r}. {nearest(at, arrays)} "
            f"It has: {_top_level(arrays)}."
        )
    value = arrays[at].value
    if isinstance(value, Unknown):
        raise ReceptiveFieldError(
            f"The receptive field of {at!r} is unknown, because it depends on the "
            f"operation {value.operation}."
        )
    if isinstance(value, Independent):
        raise ReceptiveFieldError(f"{at!r} does not depend on the image.")
    return at, value


def position_axes(name: str, seen: Seen) -> tuple[int, int]:
    """Returns the axes of an array along the image's height and width.

    Raises:
      ReceptiveFieldError: if the array is not a map.
    """
    vertical, horizontal = (
        [axis for axis, step in enumerate(span.steps) if step] for span in seen.spans
    )
    if len(vertical) != 1 or len(horizontal) != 1 or vertical == horizontal:
        raise ReceptiveFieldError(f"{name!r} is not a map: it has no height and width.")
    return vertical[0], horizontal[0]


def checked_position(
    position: Sequence[int] | None, size: Sequence[int]
) -> tuple[int, int]:
    """Checks a (vertical, horizontal) position in a map of that size; None: the middle.

    Raises:
      ValueError: if it is outside the map.
    """
    height, width = size
    if position is None:
        position = (height // 2, width // 2)
    if not is_sequence(position) or len(position) != 2:
        raise ValueError(f"position must be (vertical, horizontal), got {position!r}.")
    row, column = whole_numbers("position", position, least=None)
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"position must be (vertical, horizontal) in a map of {height} x {width}, "
            f"got {(row, column)}."
        )
    return row, column


def _line(variable, lines):
    return -1 if isinstance(variable, core.Literal) else lines.get(variable, -1)


def _intermediates(model, options, variables, images) -> dict[str, jax.Array]:
    """What a module sows and its submodules return, by name."""
    _, state = model.apply(
        variables,
        images,
        mutable=DenyList("params"),
        capture_intermediates=True,
        rngs={"dropout": jax.random.key(0)},
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
        raise ReceptiveFieldError(f"No array is a map. Arrays: {_top_level(arrays)}.")
    last = max(arrays[name].line for name in maps)
    # Of several names for one array, "stage4" is better than "stage4_block3/bn".
    names = [name for name in maps if arrays[name].line == last]
    return min(names, key=lambda name: (name.count("/"), len(name)))


def _top_level(arrays) -> str:
    """Names without a slash, or all names if there are none."""
    top = [name for name in arrays if "/" not in name]
    return ", ".join(top if top else arrays)
