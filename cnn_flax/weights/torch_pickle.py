"""Reading torch's pickles without torch and without running them.

A pickle is a program for a stack machine. This is that machine, with only the
instructions that dicts of tensors need and no access to Python: a name in a pickle is
either in the tables below or rejected, nothing is imported or looked up, and no
attribute is set.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from cnn_flax.weights.errors import CheckpointError

__all__ = ["Pickle", "Storage", "Tensor", "load"]


@dataclasses.dataclass(frozen=True)
class Storage:
    """A one-dimensional array of numbers in the file.

    Attributes:
      dtype: name of the dtype; "uint8" for raw bytes, where the tensor has the dtype.
      key: name of the array in the file.
      size: number of elements.
      start: first element, where this is a part of the array named `key`.
    """

    dtype: str
    key: str
    size: int
    start: int = 0


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage, as stated in the file; nothing is checked.

    Attributes:
      storage: the array that it is a view of.
      dtype: name of the dtype.
      offset: first element.
      shape: size of each axis.
      strides: elements between neighbours along each axis.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Pickle(NamedTuple):
    """The content of a pickle.

    Attributes:
      tree: dicts, lists, tuples, numbers and strings, and a `Tensor` for each tensor.
      storages: the storages by key.
    """

    tree: Any
    storages: dict[str, Storage]


@dataclasses.dataclass(frozen=True)
class _Name:
    """A placeholder for a class, a function or a dtype of torch."""

    name: str


def load(file: BinaryIO) -> Pickle:
    """Reads one pickle and leaves the file positioned after it.

    Raises:
      CheckpointError: if it holds anything else; names it. A damaged pickle raises the
        errors of the machine's own operations: LookupError, TypeError, ValueError ...
    """
    storages: dict[str, Storage] = {}
    stack: list[Any] = []
    below: list[list[Any]] = []  # The part of the stack under each mark.
    memo: dict[int, Any] = {}
    argument: Any
    for instruction, argument, _ in pickletools.genops(file):
        match instruction.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case name if name in _LITERALS:
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE":
                stack, items = below.pop(), stack
                stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                stack, items = below.pop(), stack
                stack[-1].extend(items)
            case "SETITEM":
                items = stack[-2:]
                del stack[-2:]
                stack[-1].update(_pairs(*items))
            case "SETITEMS":
                stack, items = below.pop(), stack
                stack[-1].update(_pairs(*items))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(_named(stack.pop(), name))
            case "BINPERSID":
                stack.append(_storage(*stack.pop()))
                storages[stack[-1].key] = stack[-1]
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(_FUNCTIONS[stack.pop().name](*arguments))
            case "BUILD":
                # A state dict's `_metadata` or a parameter's flags; no numbers.
                stack.pop()
            case name:
                refused = f"the pickle instruction {name} ({argument})"
                raise CheckpointError(f"holds {refused}; only tensors are read")
    return Pickle(stack.pop(), storages)


_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def _pairs(*items: Any) -> dict[Any, Any]:
    return _dict(zip(items[::2], items[1::2], strict=True))


def _key(key: Any) -> Any:
    # This also rejects nested tuples, whose hash could exhaust the C stack.
    if not isinstance(key, str | int):
        raise TypeError(f"a key is of the type {type(key).__name__}")
    return key


def _named(module: str, name: str) -> _Name:
    full = f"{module}.{name}"
    if full not in _STORAGES and full not in _DTYPES and full not in _FUNCTIONS:
        raise CheckpointError(f"holds {full}; only tensors are read")
    return _Name(full)


def _storage(kind, name, key, location, size, part=None) -> Storage:
    """The storage that a persistent id names; `part` was used before 2018."""
    del location  # The device that it was saved from.
    if kind != "storage":
        raise CheckpointError(f"holds a {kind}; only tensors are read")
    start = 0
    if part is not None:
        _, start, size = part
    return Storage(_STORAGES[name.name], _key(key), size, start)


def _tensor(storage, offset, shape, strides, *_) -> Tensor:
    return Tensor(storage, storage.dtype, offset, shape, strides)


def _tensor_with_dtype(storage, offset, shape, strides, _, __, dtype, *___) -> Tensor:
    return Tensor(storage, _DTYPES[dtype.name], offset, shape, strides)


def _parameter(data, *_) -> Tensor:
    return data


def _dict(pairs=()) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dict,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
}
_STORAGES = {
    f"torch.{module}{name}Storage": dtype
    for module in ("", "cuda.", "storage.")
    for name, dtype in {
        "Double": "float64",
        "Float": "float32",
        "Half": "float16",
        "BFloat16": "bfloat16",
        "ComplexDouble": "complex128",
        "ComplexFloat": "complex64",
        "Long": "int64",
        "Int": "int32",
        "Short": "int16",
        "Char": "int8",
        "Byte": "uint8",
        "Bool": "bool",
        "Untyped": "uint8",
    }.items()
}
# The dtypes without a storage class.
_DTYPES = {
    f"torch.{dtype}": dtype
    for dtype in (
        "uint16",
        "uint32",
        "uint64",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
    )
}
