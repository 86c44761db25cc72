"""Hostile pickles in torch's manner: programs of its machine, changed by the piece.

The instructions that would run code if anything executed them create a file; nothing
here executes a pickle.
"""

import functools
import pickletools
import random
import struct
from collections.abc import Callable, Sequence

from benchmarks.fuzzing.mutators import mutate_bytes, times

__all__ = ["mutate_pickle", "number", "state_dict", "tensor", "word"]


def word(text: str) -> bytes:
    """The instruction that leaves a string."""
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """The instruction that leaves an integer."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    if len(data) < 256:
        return b"\x8a" + bytes([len(data)]) + data
    return b"\x8b" + struct.pack("<I", len(data)) + data


def _name(full: str) -> bytes:
    module, _, name = full.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def tensor(
    key: str, size: int, shape: Sequence[int], strides: Sequence[int], offset: int = 0
) -> bytes:
    """The instructions that leave a float32 tensor of the storage `key`."""
    names = word("storage"), _name("torch.FloatStorage"), word(key), word("cpu")
    storage = _tuple(*names, number(size)) + b"Q"
    sizes = (_tuple(*map(number, shape)), _tuple(*map(number, strides)))
    hooks = _name("collections.OrderedDict") + b")R"
    arguments = _tuple(storage, number(offset), *sizes, b"\x89", hooks)
    return _name("torch._utils._rebuild_tensor_v2") + arguments + b"R"


def state_dict(items: dict[str, bytes]) -> bytes:
    """A pickle of a dict, from the instructions of its values."""
    parts = b"".join(word(name) + code for name, code in items.items())
    return b"\x80\x02}(" + parts + b"u."


_COMMAND = word("touch code-has-run")
_CALLS = tuple(
    _name(full) + argument + b"\x85R"
    for full, argument in (
        ("os.system", _COMMAND),
        ("posix.system", _COMMAND),
        ("nt.system", _COMMAND),
        ("subprocess.getoutput", _COMMAND),
        ("subprocess.Popen", _COMMAND),
        ("builtins.eval", word("open('code-has-run', 'w')")),
        ("builtins.exec", word("open('code-has-run', 'w')")),
        ("__builtin__.eval", word("open('code-has-run', 'w')")),
        ("builtins.open", word("code-has-run")),
        ("numpy.load", word("code-has-run")),
        ("torch.load", word("code-has-run")),
        ("importlib.import_module", word("antigravity")),
        ("runpy.run_path", word("code-has-run")),
        ("pathlib.Path.touch", word("code-has-run")),
    )
)
_SNIPPETS = (
    *_CALLS,
    *(call[:-1] + b"\x81" for call in _CALLS[:6]),  # NEWOBJ
    b"(S'touch code-has-run'\nios\nsystem\n",
    b"(cos\nsystem\n" + _COMMAND + b"o",
    b"\x8c\x02os\x8c\x06system\x93" + _COMMAND + b"\x85R",
    b"N\x85\x94" + b"h\x00h\x00\x86\x94" * 30,
    b"K\x01\x85" + b"q\x00h\x00\x86" * 60,
    b"]q\x01h\x01a",
    b"}q\x02K\x00h\x02s",
    *(b"(" * 5, b"t", b"0", b"1", b"2", b"Q", b"R", b"b", b"a", b"e", b"s", b"u", b"."),
    *(b"}", b"]", b")", b"N", b"\x88", b"\x89", b"\x8f", b"(\x90", b"(\x91", b"\x94"),
    *(b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"\x97", b"\x98"),
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"B\xff\xff\xff\x7f",
    b"T\xff\xff\xff\x7f",
    b"Pstorage\n",
    *(
        b"Gno float",
        b"F1e999\n",
        b"I99999999999999999999\n",
        b"L" + b"9" * 5000 + b"L\n",
    ),
    *(b"I01\n", b"S'\\x41'\n", b"V\\u0041\n", b"g0\n", b"p0\n", b"j\xff\xff\xff\xff"),
    *(map(number, (-1, 0, 1, 64, 2**31, 2**63 - 1, 2**63, 2**64, 2**127, 2**4000))),
    *(_name("torch." + n) for n in ("Size", "FloatStorage", "QInt8Storage", "uint16")),
    *map(
        _name,
        (
            "torch._utils._rebuild_tensor",
            "torch._utils._rebuild_tensor_v3",
            "torch._utils._rebuild_parameter",
            "torch._utils._rebuild_parameter_with_state",
            "torch._tensor._rebuild_from_type_v2",
            "torch.nn.parameter.Parameter",
            "collections.OrderedDict",
            "collections.defaultdict",
            "argparse.Namespace",
        ),
    ),
    tensor("0", 4, (2, 2), (2, 1)),
    tensor("1", 2**40, (2**20, 2**20), (0, 0)),
    tensor("no such key", 1, (1,), (1,)),
    tensor("0", 4, (1,) * 70, (1,) * 70),
)


@functools.cache
def _instructions(data: bytes) -> tuple[bytes, ...]:
    """The instructions of a whole pickle."""
    starts = [at for _, _, at in pickletools.genops(data)]
    ends = [*starts[1:], len(data)]
    return tuple(data[a:b] for a, b in zip(starts, ends, strict=True) if a is not None)  # pyright: ignore


def mutate_pickle(rng: random.Random, data: bytes) -> bytes:
    """Changes instructions of a pickle, which must be whole, or bytes of it."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, data, _SNIPPETS)
    code = list(_instructions(data))
    for _ in range(times(rng)):
        at = rng.randrange(len(code))
        change: Callable[[], None] = rng.choice(
            (
                lambda at=at: code.insert(at, rng.choice(_SNIPPETS)),
                lambda at=at: code.__setitem__(at, rng.choice(_SNIPPETS)),
                lambda at=at: code.insert(at, rng.choice(code)),
                lambda at=at: code.__setitem__(at, rng.choice(code)),
                lambda at=at: code.__setitem__(at, mutate_bytes(rng, code[at])),
                lambda at=at: code.__setitem__(at, number(rng.choice(_SIZES))),
                lambda at=at: code.__setitem__(
                    slice(at, at + 1), [code[at]] * rng.choice((2, 2, 9, 300))
                ),
                lambda at=at: code.__delitem__(slice(at, at + rng.randint(1, 3))),
            )
        )
        change()
        if not code:
            return b""
    return b"".join(code)


_SIZES = (-1, 0, 1, 2, 3, 4, 63, 65, 2**20, 2**31, 2**40, 2**62, 2**63, 2**64, 10**4000)
