"""Tracing models to jaxprs, with each operation labelled by its module.

Nothing is computed or compiled: arrays are abstract.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]

from cnn_flax.layers.arguments import whole_number, whole_pair

__all__ = [
    "abstract_images",
    "abstract_variables",
    "bodies",
    "called",
    "check_module",
    "default_branch",
    "label_of",
    "labelled",
    "scan_counts",
]

_MARK = "cnn_flax.analysis:"

# Primitives that call a function, and the parameter that holds its program.
# `jax.checkpoint` is "remat2" or "checkpoint", depending on JAX's version.
_CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def abstract_images(
    image_size: int | Sequence[int], channels: int = 3
) -> jax.ShapeDtypeStruct:
    """An abstract float32 image, `[1, H, W, channels]`.

    Raises:
      ValueError: if a size is not a positive integer.
    """
    try:
        size = whole_pair("image_size", image_size)
    except ValueError:
        raise ValueError(
            "image_size must be a positive number of pixels, or (height, width); "
            f"got {image_size!r}."
        ) from None
    channels = whole_number("channels", channels, least=None)
    if channels < 1:
        raise ValueError(f"channels must be a positive number, got {channels}.")
    return jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)


def abstract_variables(
    model: nn.Module, images: jax.ShapeDtypeStruct, **arguments: Any
) -> dict[str, Any]:
    """The abstract variables of a model; `arguments` are those of its call.

    Raises:
      TypeError: if `model` is not a module.
    """
    check_module(model)
    return dict(
        jax.eval_shape(
            lambda key, images: model.init(key, images, **arguments),
            jax.random.key(0),
            images,
        )
    )


def check_module(model: Any) -> None:
    """Checks that a model is a module.

    Raises:
      TypeError: if it is not.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a flax.linen.Module, got {model!r}; create_model builds "
            "one from its name."
        )


@contextmanager
def labelled(label: Callable[[nn.Module], str | None]) -> Iterator[None]:
    """Labels the operations of modules traced inside this context, for `label_of`.

    Flax's own scopes do not mark where a module begins, and can be turned off.

    Args:
      label: returns the label of a module; None: that of the enclosing module.
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
    """Label of the innermost labelled module around an operation in its program."""
    for scope in reversed(equation.source_info.name_stack.stack):
        name = getattr(scope, "name", "")
        if name.startswith(_MARK):
            return name.removeprefix(_MARK)
    return None


def called(equation: core.JaxprEqn) -> ClosedJaxpr | None:
    """The program that an operation calls once on its own inputs, or None."""
    if equation.primitive.name not in _CALLS:
        return None
    inner = equation.params[_CALLS[equation.primitive.name]]
    # Since JAX 0.12 the two classes are one, which has its constants with it.
    return inner if hasattr(inner, "consts") else ClosedJaxpr(inner, ())


def default_branch(equation: core.JaxprEqn) -> ClosedJaxpr | None:
    """The default branch of a platform-dependent operation, or None.

    None: the operation is not platform-dependent, or has no default.
    """
    platforms = equation.params.get("branches_platforms")
    if platforms is None or None not in platforms:
        return None
    return equation.params["branches"][platforms.index(None)]


def scan_counts(equation: core.JaxprEqn) -> tuple[int, int]:
    """Number of constants and of carried values among the inputs of a `scan`."""
    parameters = equation.params
    if "num_carry" in parameters:  # JAX before 0.12.
        return parameters["num_consts"], parameters["num_carry"]
    constants, carry, _ = (len(list(part)) for part in parameters["ft_in"].unpack())
    return constants, carry


def bodies(equation: core.JaxprEqn) -> list[tuple[core.Jaxpr, int | None]]:
    """The programs inside an operation, and how often each runs.

    A platform-dependent operation has only its default branch. The count is None if it
    is unknown, as in a `while`, a `cond` on a value, or a reduction.
    """
    once = called(equation) or default_branch(equation)
    if once is not None:
        return [(once.jaxpr, 1)]
    times = equation.params["length"] if equation.primitive.name == "scan" else None
    return [
        (getattr(jaxpr, "jaxpr", jaxpr), times)
        for jaxpr in core.jaxprs_in_params(equation.params)
    ]
