"""The base class of networks and layers: fields that are checked, compared and copied.

Flax compares modules by their fields, which is what decides whether `jax.jit` traces a
function again, and pickles them by their fields. Two kinds of values stand in the way:
`functools.partial` objects compare by identity, and JAX's own functions (`nn.silu`) are
objects that do not pickle.
"""

import dataclasses
import functools
import importlib
import operator
import types
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype

from cnn_flax.layers.arguments import (
    finite_number,
    is_sequence,
    whole_number,
    whole_numbers,
    whole_pair,
)

__all__ = ["Module", "Padding"]

Padding = str | int | Sequence[int | tuple[int, int]]


class Module(nn.Module):
    """A `flax.linen.Module` whose fields are checked when it is built.

    Fields are checked by their annotations: NumPy's numbers become Python's, lists
    become tuples, and `functools.partial` objects equal those with the same content.
    Two modules of equal fields are equal and have one hash, and a module that is bound
    to no variables survives `pickle`, `copy.copy` and `copy.deepcopy`. JAX's functions
    are pickled by name, as Python's are.

    Raises:
      ValueError: if a number is not whole or out of range.
      TypeError: if a value is of another kind than the field.
    """

    def __post_init__(self):
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if value is not None or not _is_optional(field.type):
                setattr(self, field.name, _check_of(field.type)(field.name, value))
        super().__post_init__()

    def __reduce_ex__(self, protocol):
        if self.scope is not None:  # Bound: it has more than its fields.
            return super().__reduce_ex__(protocol)
        fields = {f.name: getattr(self, f.name) for f in _fields(type(self))}
        return _rebuilding(type(self), **fields, name=self.name, parent=None)


class Bound(functools.partial):
    """A `functools.partial` that compares by its content."""

    def __eq__(self, other):
        return isinstance(other, Bound) and self._content() == other._content()

    def __hash__(self):
        return hash((self.func, self.args, frozenset(self.keywords.items())))

    def __reduce__(self):
        return _rebuilding(Bound, self.func, *self.args, **self.keywords)

    def _content(self):
        return self.func, self.args, self.keywords


def comparable(value: Any) -> Any:
    """Replaces `functools.partial` objects, nested ones too, by `Bound`."""
    if not isinstance(value, functools.partial):
        return value
    arguments = map(comparable, value.args)
    keywords = {name: comparable(item) for name, item in value.keywords.items()}
    return Bound(comparable(value.func), *arguments, **keywords)


# Fields.

# The least that a whole number may be, where it is not 1. Negative padding crops.
_LEAST = {"num_classes": 0, "padding": None}


@functools.cache
def _fields(module: type[nn.Module]) -> list[dataclasses.Field]:
    own = [field for field in dataclasses.fields(module) if field.init]
    return [field for field in own if field.name not in ("parent", "name")]


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


@functools.cache
def _is_optional(kind: Any) -> bool:
    return type(None) in _options(kind)


def _required(kind: Any) -> Any:
    """An annotation without `| None`, in the form that compares."""
    return Union[tuple(k for k in _options(kind) if k is not type(None))]  # noqa: UP007


@functools.cache
def _check_of(kind: Any) -> Callable[[str, Any], Any]:
    if get_origin(kind) is Literal:
        return functools.partial(_choice, get_args(kind))
    return _CHECKS.get(_required(kind), _function)


def _whole(name: str, value: Any) -> int:
    return whole_number(name, value, _LEAST.get(name, 1))


def _whole_numbers(name: str, value: Any) -> tuple[int, ...]:
    return whole_numbers(name, value, _LEAST.get(name, 1))


def _pair(name: str, value: Any) -> tuple[int, int]:
    if not is_sequence(value):
        raise ValueError(f"{name} must be (vertical, horizontal), got {value!r}.")
    return whole_pair(name, value, _LEAST.get(name, 1))


def _one_or_pair(name: str, value: Any) -> int | tuple[int, int]:
    return (_pair if is_sequence(value) else _whole)(name, value)


def _rows(name: str, value: Any) -> tuple[tuple[int, ...], ...]:
    if not is_sequence(value):
        raise ValueError(f"{name} must be a sequence of sequences, got {value!r}.")
    return tuple(_whole_numbers(f"{name}[{i}]", row) for i, row in enumerate(value))


def _padding(name: str, value: Any) -> Padding:
    if isinstance(value, str):
        if value.upper() not in _PADDINGS:
            raise ValueError(
                f"{name} must be one of {', '.join(_PADDINGS)} or numbers, got "
                f"{value!r}."
            )
        return value
    if not is_sequence(value):
        return _whole(name, value)
    if len(value) != 2:
        raise ValueError(
            f"{name} must be one number, one per axis or a (low, high) pair per axis; "
            f"got {value!r}."
        )
    return tuple(_one_or_pair(name, item) for item in value)


_PADDINGS = ("SAME", "VALID", "SAME_LOWER")


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}.")
    return bool(value)


def _choice(choices: Sequence[str], name: str, value: Any) -> str:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}.")
    return value


def _float_dtype(name: str, value: Any) -> Any:
    try:
        is_float = value is not None and jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        is_float = False
    if not is_float:
        raise TypeError(
            f"{name} must be a float dtype, such as jnp.bfloat16; got {value!r}."
        )
    return value


def _function(name: str, value: Any) -> Any:
    if not callable(value):
        raise TypeError(f"{name} must be a function or a class, got {value!r}.")
    return comparable(value)


# From annotations to functions of a field's name and value; all others are callables.
_CHECKS = {
    _required(kind): check
    for kind, check in (
        (bool, _flag),
        (int, _whole),
        (float, finite_number),
        (str, _text),
        (tuple[int, int], _pair),
        (int | tuple[int, int], _one_or_pair),
        (Sequence[int], _whole_numbers),
        (Sequence[Sequence[int]], _rows),
        (Padding, _padding),
        (Dtype, _float_dtype),
    )
}


# Pickling.


class _Name(NamedTuple):
    """Where to import an object from."""

    module: str
    name: str

    def find(self) -> Any:
        return operator.attrgetter(self.name)(importlib.import_module(self.module))


def _rebuilding(factory, *arguments, **keywords):
    """A call that gives `factory(*arguments, **keywords)`, of what pickles."""
    named = {name: _named(value) for name, value in keywords.items()}
    return _rebuild, (factory, tuple(map(_named, arguments)), named)


def _rebuild(factory, arguments, keywords):
    found = {name: _found(value) for name, value in keywords.items()}
    return factory(*map(_found, arguments), **found)


def _named(value):
    """The name of a function that is an object, as those of `jax.jit` are."""
    if not callable(value) or isinstance(value, type | types.FunctionType):
        return value
    try:
        name = _Name(value.__module__, value.__qualname__)
        return name if name.find() is value else value
    except (AttributeError, ImportError):
        return value


def _found(value):
    return value.find() if isinstance(value, _Name) else value
