"""Registry of operations: how each one fuses, and what each random one draws.

An operation registers itself by a decorator where it is defined:

- `as_homography`: it moves pixels, by a 3 x 3 matrix.
- `as_colour_matrix`: it is affine in the colours of a pixel.
- `as_level_table`: it maps each of the 256 levels to another.
- `as_draw`: it is random; it draws the arguments of a deterministic operation.

`compose` fuses neighbours of one kind. An operation that is not registered runs alone.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import jax

from cnn_flax.augment.prng import Draw

__all__ = [
    "DRAWS",
    "FUSIONS",
    "Fusion",
    "Operation",
    "as_colour_matrix",
    "as_draw",
    "as_homography",
    "as_level_table",
    "read_operation",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Fusion(NamedTuple):
    """How an operation fuses with its neighbours.

    Attributes:
      kind: operations of the same kind fuse.
      build: returns the operation's matrix or table.
      sampling: `interpolation` and `fill`, as far as the operation uses them, with
        their defaults. Operations fuse only if they agree on both.
    """

    kind: Literal["homography", "colour_matrix", "level_table"]
    build: Callable[..., jax.Array]
    sampling: Mapping[str, Any]


FUSIONS: dict[Callable, Fusion] = {}
"""Operations that fuse."""

DRAWS: dict[Callable, tuple[Callable[..., Draw], Callable[..., jax.Array]]] = {}
"""Random operations: the draw, and the operation that takes its arguments."""


def as_homography(
    matrix: Callable[..., jax.Array], **sampling: Any
) -> Callable[[_Function], _Function]:
    """Registers an operation that moves pixels.

    Args:
      matrix: from (H, W) and the operation's arguments, without `interpolation` and
        `fill`, to `[3, 3]` or `[N, 3, 3]`; see `homography`.
      **sampling: `interpolation` or `fill`, where the operation has a fixed one instead
        of an argument.
    """

    def register(operation: _Function) -> _Function:
        parameters = inspect.signature(operation).parameters
        defaults = {
            name: parameters[name].default
            for name in ("interpolation", "fill")
            if name in parameters
        }
        FUSIONS[operation] = Fusion("homography", matrix, defaults | sampling)
        return operation

    return register


def as_colour_matrix(
    matrix: Callable[..., jax.Array],
) -> Callable[[_Function], _Function]:
    """Registers an operation that is affine in the colours of a pixel.

    Args:
      matrix: from the image's mean colour before the operation, `[N, C]`, and the
        operation's arguments, each `[N]`, to `[N, C, C + 1]`; see `colour_matrix`.
    """

    def register(operation: _Function) -> _Function:
        FUSIONS[operation] = Fusion("colour_matrix", matrix, {})
        return operation

    return register


def as_level_table(
    table: Callable[..., jax.Array],
) -> Callable[[_Function], _Function]:
    """Registers an operation that maps each of the 256 levels to another.

    Args:
      table: from the counts of the levels before the operation, `[N, C, 256]`, and the
        operation's arguments, each `[N]`, to `[N, C, 256]`; see `levels`.
    """

    def register(operation: _Function) -> _Function:
        FUSIONS[operation] = Fusion("level_table", table, {})
        return operation

    return register


def as_draw(
    draw: Callable[..., Draw], operation: Callable[..., jax.Array]
) -> Callable[[_Function], _Function]:
    """Registers a random operation.

    Its arguments are those of `draw` and those of `operation` that are not drawn, by
    the same names.

    Args:
      draw: from a key, N, (H, W, C) if it has a parameter `shape`, and options to
        arguments of `operation`.
      operation: the deterministic operation that the random one applies.
    """

    def register(random_operation: _Function) -> _Function:
        DRAWS[random_operation] = (draw, operation)
        return random_operation

    return register


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a chain.

    Attributes:
      function: a deterministic operation, `(images, **arguments)`; or a function that
        is not in `DRAWS` and takes its key as an argument, and labels if it `mixes`.
      options: the arguments that are the same in every batch.
      draw: from a key (one, or one per image), N and (H, W, C) to the other arguments.
      mixes: whether it also takes labels, and returns images and labels.
    """

    function: Callable[..., Any]
    options: Mapping[str, Any]
    draw: Callable[[jax.Array, int, tuple[int, ...]], Draw]
    mixes: bool = False

    @property
    def fusion(self) -> Fusion | None:
        """How it fuses; None if it runs alone."""
        return FUSIONS.get(self.function)

    def arguments(self, key: jax.Array, images: jax.Array) -> dict[str, Any]:
        """All arguments except the images: the options, and what is drawn.

        Raises:
          ValueError: if the operation refuses them.
        """
        arguments = {**self.options, **self.draw(key, len(images), images.shape[1:])}
        if self.fusion:
            # A fused operation does not run itself: trace it for its own checks.
            jax.eval_shape(functools.partial(self.function, **arguments), images)
        return arguments


def read_operation(operation: Callable[..., Any]) -> Operation:
    """Reads an item of the list that `compose` takes.

    Args:
      operation: an operation of `cnn_flax.augment`, or a function of `images`, of `key,
        images` or of `key, images, labels`; other arguments are bound by
        `functools.partial`.

    Raises:
      TypeError: if it has another signature, or does not take the bound arguments.
    """
    function, options = operation, {}
    while isinstance(function, functools.partial):
        if function.args:
            raise TypeError(
                f"Arguments are bound by name: {function.func.__name__} has "
                f"{function.args!r}."
            )
        function, options = function.func, {**function.keywords, **options}
    leading, name = _leading(function), getattr(function, "__name__", repr(function))
    if leading not in ((), ("key",), ("key", "labels")):
        raise TypeError(
            "An operation takes images, or key, images, or key, images, labels; "
            f"{name} does not."
        )
    try:
        unbound = dict.fromkeys(("images", *leading))
        inspect.signature(function).bind(**unbound, **options)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; bind arguments by partial.") from error
    if function in DRAWS:
        return _read_random(function, options)
    if leading:
        return Operation(
            function, options, lambda key, *_: {"key": key}, "labels" in leading
        )
    return Operation(function, options, lambda *_: {})


def _leading(function) -> tuple[str, ...] | None:
    """Which of key and labels it takes with the images; None if it takes no images."""
    names = list(inspect.signature(function).parameters)
    if names[:3] == ["key", "images", "labels"]:
        return ("key", "labels")
    if names[:2] == ["key", "images"]:
        return ("key",)
    return () if names[:1] == ["images"] else None


def _read_random(function, options) -> Operation:
    draw, operation = DRAWS[function]
    draw_parameters, parameters = (
        set(inspect.signature(f).parameters) for f in (draw, operation)
    )
    draw_options = {k: v for k, v in options.items() if k in draw_parameters}

    def draw_arguments(key, n, shape):
        if "shape" in draw_parameters:
            return draw(key, n, shape=shape, **draw_options)
        return draw(key, n, **draw_options)

    fixed = {k: v for k, v in options.items() if k in parameters}
    return Operation(operation, fixed, draw_arguments)
