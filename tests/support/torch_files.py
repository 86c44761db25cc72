"""Writes torch's files, and files that torch would not write, without torch."""

import dataclasses
import struct
import zipfile
from typing import Any

import numpy as np

_STORAGES = {
    "float32": "torch.FloatStorage",
    "float64": "torch.DoubleStorage",
    "complex64": "torch.ComplexFloatStorage",
    "int64": "torch.LongStorage",
}


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that a pickle names."""

    full: str


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of such a function in a pickle."""

    name: str
    arguments: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Stored:
    """A persistent id: one of torch's storages."""

    identifier: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Raw:
    """Instructions of a pickle that leave one object."""

    code: bytes


@dataclasses.dataclass(frozen=True)
class Built:
    """An object in a pickle that gets a state."""

    value: Any
    state: Any


def pickled(tree):
    """A pickle of protocol 2, the one that torch uses."""
    return b"\x80\x02" + _instructions(tree) + b"."


def storage(key, dtype, size):
    """The storage of that name: `size` numbers of `dtype`."""
    return Stored(("storage", Name(_STORAGES[dtype]), key, "cpu", size))


def tensor(key, dtype, size, shape, strides, offset=0):
    """A tensor that views a storage."""
    hooks = Call("collections.OrderedDict")
    where = storage(key, dtype, size)
    arguments = (where, offset, shape, strides, False, hooks)
    return Call("torch._utils._rebuild_tensor_v2", arguments)


def vector(key, x):
    """A tensor that views the whole storage `key`, which holds the vector `x`."""
    return tensor(key, str(x.dtype), x.size, (x.size,), (1,))


def write_zip(path, tree, storages=(), root="archive", byteorder="little"):
    """torch's format since version 1.6; `storages` are arrays by key."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/data.pkl", pickled(tree))
        archive.writestr(f"{root}/byteorder", byteorder)
        for key, x in dict(storages).items():
            archive.writestr(f"{root}/data/{key}", x.tobytes())
        archive.writestr(f"{root}/version", "3\n")


def write_stream(path, tree, storages=()):
    """torch's format before version 1.6; `storages` are arrays by key."""
    storages = dict(storages)
    parts = [
        pickled(0x1950A86A20F9469CFC6C),
        pickled(1001),
        pickled({"protocol_version": 1001, "little_endian": True}),
        pickled(tree),
        pickled(list(storages)),
    ]
    parts += [struct.pack("<q", x.size) + x.tobytes() for x in storages.values()]
    path.write_bytes(b"".join(parts))


def _instructions(tree) -> bytes:
    match tree:
        case Name(full):
            module, _, name = full.rpartition(".")
            return f"c{module}\n{name}\n".encode()
        case Raw(code):
            return code
        case Call(name, arguments):
            return _instructions(Name(name)) + _instructions(arguments) + b"R"
        case Stored(identifier):
            return _instructions(identifier) + b"Q"
        case Built(value, state):
            return _instructions(value) + _instructions(state) + b"b"
        case None:
            return b"N"
        case bool():
            return b"\x88" if tree else b"\x89"
        case int():
            digits = tree.to_bytes(tree.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(digits)]) + digits
        case float():
            return b"G" + struct.pack(">d", tree)
        case str():
            return b"X" + struct.pack("<I", len(tree.encode())) + tree.encode()
        case tuple():
            return b"(" + b"".join(map(_instructions, tree)) + b"t"
        case list():
            return b"](" + b"".join(map(_instructions, tree)) + b"e"
        case dict():
            items = (part for item in tree.items() for part in item)
            return b"}(" + b"".join(map(_instructions, items)) + b"u"
    raise TypeError(tree)


NUMBERS = np.arange(12, dtype=np.float32)
