"""A model as a traced program, each operation labelled with the module it is of.

Nothing is computed or compiled: arrays are shapes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core

__all__ = ["abstract_images", "abstract_variables", "bodies", "label_of", "labelled"]

_MARK = "cnn_flax.analysis:"

# Primitives that run their only body once.
_CALLS = {
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}


def abstract_images(
    image_size: int | Sequence[int], channels: int = 3
) -> jax.ShapeDtypeStruct:
    """One float32 image `[1, H, W, channels]` without its numbers.

    Raises:
      ValueError: if a size is not a positive number of pixels.
    """
    is_pair = isinstance(image_size, Sequence)
    size = tuple(image_size) if is_pair else (image_size, image_size)
    if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(
            "image_size is a positive number of pixels, or (height, width) of them; "
            f"got {image_size!r}."
        )
    if not isinstance(channels, int) or channels < 1:
        raise ValueError(f"channels is a positive number, got {channels!r}.")
    return jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)


def abstract_variables(
    model: nn.Module, images: jax.ShapeDtypeStruct, **arguments: Any
) -> dict[str, Any]:
    """The variables of a model without their numbers; `arguments` as in its call."""
    return dict(
        jax.eval_shape(
            lambda key, images: model.init(key, images, **arguments),
            jax.random.key(0),
            images,
        )
    )


@contextmanager
def labelled(label: Callable[[nn.Module], str | None]) -> Iterator[None]:
    """Labels what modules do while they are traced inside, for `label_of`.

    Flax's own scopes do not say where a module begins, and can be turned off.

    Args:
      label: the label of a module; None: that of the module around it.
    """

    def mark(method, args, kwargs, context):
        name = label(context.module)
        if name is None:
            return method(*args, **kwargs)
        with jax.named_scope(_MARK + name):
            return method(*args, **kwargs)

    with nn.intercept_methods(mark):
        yield


def label_of(equation: core.JaxprEqn) -> str | None:
    """Label of the innermost module that an operation is of, in its own program."""
    for scope in reversed(equation.source_info.name_stack.stack):
        name = getattr(scope, "name", "")
        if name.startswith(_MARK):
            return name.removeprefix(_MARK)
    return None


def bodies(equation: core.JaxprEqn) -> list[tuple[core.Jaxpr, int | None]]:
    """The programs inside an operation, and how often each runs.

    A choice by platform has its default branch alone. None: it cannot be told how
    often, as in a `while`, a `cond` that chooses by a value, or a reduction.
    """
    inside = [
        getattr(jaxpr, "jaxpr", jaxpr)
        for jaxpr in core.jaxprs_in_params(equation.params)
    ]
    name = equation.primitive.name
    if name == "scan":
        return [(inside[0], equation.params["length"])]
    platforms = equation.params.get("branches_platforms")
    if name == "cond" and platforms is not None:
        return [(inside[platforms.index(None)], 1)]
    return [(jaxpr, 1 if name in _CALLS else None) for jaxpr in inside]
