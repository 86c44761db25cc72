"""Reading torch's pickles without torch and without running them.

A pickle is a program for a stack machine. This is that machine, with only the
instructions that dicts of tensors need and no access to Python: nothing is imported,
looked up or called, and no attribute is set, except for the functions in the tables
below. Anything else that a pickle names, calls or builds becomes an `Unknown`, which
does nothing: training programs save their arguments next to the tensors.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

__all__ = ["Pickle", "Storage", "Tensor", "Unknown", "load"]


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


@dataclasses.dataclass(frozen=True, eq=False)
class Unknown:
    """A placeholder for anything else: a class, a function, an object of a class.

    What a pickle does to one has no effect.

    Attributes:
      what: what the pickle calls it, such as "argparse.Namespace".
    """

    what: str

    def append(self, _: Any) -> None:
        """Ignores an item."""

    extend = update = append


class Pickle(NamedTuple):
    """The content of a pickle.

    Attributes:
      tree: dicts, lists, tuples, numbers and strings, a `Tensor` for each tensor, and
        an `Unknown` for each object. Keys of dicts are strings, integers or `Unknown`.
      storages: the storages by key.
    """

    tree: Any
    storages: dict[str, Storage]


def load(file: BinaryIO) -> Pickle:
    """Reads one pickle and leaves the file positioned after it.

    Integers of more than 128 bits, which no tensor has, are `Unknown`: arithmetic on
    them, and their digits, could take hours.

    A damaged pickle raises the errors of the machine's own operations: LookupError,
    TypeError, ValueError ...
    """
    storages: dict[str, Storage] = {}
    stack: Any = []
    below: list[list[Any]] = []  # The part of the stack under each mark.
    memo: dict[int, Any] = {}
    argument: Any
    for instruction, argument, _ in pickletools.genops(file):
        match instruction.name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case name if name in _LITERALS:
                stack.append(_literal(argument))
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
                stack.append(Unknown(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(Unknown(".".join((stack.pop(), name))))
            case "BINPERSID":
                stack.append(_persistent(stack.pop()))
                if isinstance(stack[-1], Storage):
                    storages[stack[-1].key] = stack[-1]
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":
                # A state dict's `_metadata`, a parameter's flags, an object's state.
                stack.pop()
            case name:
                # Sets, bytes, objects of other protocols.
                for kind in reversed(instruction.stack_before):
                    if kind is pickletools.markobject:
                        stack = below.pop()
                    elif kind is not pickletools.stackslice:
                        stack.pop()
                made = f"{name} ({argument})" if isinstance(argument, str) else name
                for _ in instruction.stack_after:
                    stack.append(Unknown(f"the pickle instruction {made}"))
    return Pickle(stack.pop(), storages)


_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
}
_MOST_BITS = 128  # Of an integer.
_MOST_ARGUMENTS = 16  # Of a call; torch's have up to 8.
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def _literal(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return Unknown(f"an integer of {value.bit_length()} bits")
    return value


def _pairs(*items: Any) -> dict[Any, Any]:
    pairs = zip(items[::2], items[1::2], strict=True)
    return {_key(key): value for key, value in pairs}


def _key(key: Any) -> Any:
    # No other key is hashed: the hash of nested tuples could exhaust the C stack.
    if isinstance(key, str | int | Unknown):
        return key
    return Unknown(type(key).__name__)


def _persistent(identifier: Any) -> Storage | Unknown:
    """The storage that a persistent id names, or a class of torch's first versions."""
    if isinstance(identifier, tuple) and identifier[:1] == ("storage",):
        return _storage(*identifier[1:])
    return Unknown("a persistent id that is no storage")


def _storage(name, key, location, size, part=None) -> Storage | Unknown:
    """The storage that a persistent id names; `part` was used before 2018."""
    del location  # The device that it was saved from.
    start = 0
    if part is not None:
        _, start, size = part
    if not isinstance(key, str):
        raise TypeError(f"a storage's key is of the type {type(key).__name__}")
    if name.what not in _STORAGES:
        return name
    return Storage(_STORAGES[name.what], key, size, start)


def _call(function: Any, arguments: Any) -> Any:
    """The tensor or dict that a call makes, if it is a call that we know."""
    if not isinstance(function, Unknown):
        raise TypeError(f"a {type(function).__name__} is called")
    if not isinstance(arguments, tuple):
        raise TypeError("a call has no tuple of arguments")
    known = _FUNCTIONS.get(function.what)
    if known is None:
        return function
    if len(arguments) > _MOST_ARGUMENTS:
        # Repeated, the calls of a megabyte could take hours.
        raise TypeError("a call has more arguments than torch's")
    return known(*arguments)


def _tensor(storage, offset, shape, strides, *_) -> Tensor | Unknown:
    if not isinstance(storage, Storage):
        return storage
    return Tensor(storage, storage.dtype, offset, shape, strides)


def _tensor_with_dtype(
    storage, offset, shape, strides, _, __, dtype, *___
) -> Tensor | Unknown:
    if not isinstance(storage, Storage) or dtype.what not in _DTYPES:
        return dtype
    return Tensor(storage, _DTYPES[dtype.what], offset, shape, strides)


def _first(data, *_) -> Any:
    return data


def _of_type(function, _, arguments, *__) -> Any:
    """A tensor with attributes, which are left out."""
    return _call(function, arguments)


def _dict(pairs=None) -> dict[Any, Any]:
    """A dict; Python 2 lists the items of an ordered one."""
    made = {_key(key): value for key, value in pairs or ()}
    if pairs:
        pairs.clear()  # Repeated, a list of a megabyte could fill the memory.
    return made


def _empty_dict(*_) -> dict[Any, Any]:
    return {}


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _empty_dict,
    "torch.Size": _first,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.nn.parameter.Parameter": _first,
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
        "QInt8": "int8",  # Only to be passed over: a quantized tensor is `Unknown`.
        "QUInt8": "uint8",
        "QInt32": "int32",
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
