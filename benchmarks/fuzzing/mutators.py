"""Mutations of bytes and of JSON, as pure functions of a random number generator."""

import json
import random
from collections.abc import Sequence
from typing import Any

__all__ = ["json_bytes", "mutate_bytes", "mutate_json", "mutate_text", "times"]

# Where sizes and signs change, and what fills a memory.
_NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 16, 63, 64, 65, 100, 127, 128, 255, 256, 1000, 4096),
    *(2**15 - 1, 2**15, 2**16 - 1, 2**16, 2**20, 2**24, 2**28, 2**31 - 1, 2**31),
    *(2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
_BYTES = (0, 1, 0x7F, 0x80, 0xFF, 10, 32, 34, 44, 46, 47, 58, 91, 93, 123, 125)
_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\n",
        "a\nb",
        "..",
        "../x",
        "/etc/passwd",
        "x" * 300,
        "é",
        "\ud800",
    ),
    *(
        "-1",
        "1e999",
        "nan",
        "True",
        "null",
        "float32",
        "{}",
        "%s%n",
        "[/red]",
        "\x1b[31m",
    ),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.0, 0.5, -0.5, 1.5, 1e-300, 1e308),
    *(float("nan"), float("inf"), float("-inf"), 2**31, 2**53, 2**63, -(2**63)),
    *(10**30, 10**400, [], {}, [[]], [0], [None], {"": 0}, {"a": {}}, *_TEXTS),
)


def times(rng: random.Random) -> int:
    """How often one input is mutated: mostly once or twice, at most eight times."""
    count = 1
    while count < 8 and rng.random() < 0.45:
        count += 1
    return count


def mutate_bytes(
    rng: random.Random, data: bytes, tokens: Sequence[bytes] = (), head: int = 0
) -> bytes:
    """Changes, inserts, removes, repeats or moves a few bytes.

    Args:
      rng: the source of all choices.
      data: the bytes.
      tokens: what the format's parser looks for, to be inserted.
      head: length of the header, which every second change hits; 0 for none.
    """
    array = bytearray(data)
    for _ in range(times(rng)):
        size = len(array)
        if not size:
            return bytes(array) + bytes(rng.choices(_BYTES, k=rng.randrange(9)))
        within = min(size, head) if head and rng.random() < 0.5 else size
        at = rng.randrange(within)
        kind = rng.randrange(12 if tokens else 10)
        if kind == 0:
            array[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            array[at] = rng.choice(_BYTES) if rng.random() < 0.5 else rng.randrange(256)
        elif kind in (2, 3):
            width = rng.choice((1, 2, 4, 4, 8))
            order = rng.choice(("little", "big"))
            if kind == 2:
                number = rng.choice(_NUMBERS)
            else:
                number = int.from_bytes(array[at : at + width], order)
                number += rng.randint(-9, 9)
            number %= 256**width
            array[at : at + width] = number.to_bytes(width, order)
        elif kind == 4:
            del array[at : at + rng.choice((1, 1, 2, 4, 8, 16, 64, size))]
        elif kind == 5:
            part = array[at : at + rng.choice((1, 2, 4, 8, 16, 64))]
            array[at:at] = part * rng.choice((1, 1, 1, 2, 16))
        elif kind == 6:
            source, length = rng.randrange(size), rng.choice((1, 2, 4, 8, 32))
            array[at : at + length] = array[source : source + length]
        elif kind == 7:
            del array[rng.randrange(size) :]
        elif kind == 8:
            length = rng.choice((1, 4, 16, 64))
            array[at : at + length] = bytes([rng.choice(_BYTES)]) * length
        elif kind == 9:
            array[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 16)))
        else:
            token = rng.choice(tokens)
            array[at : at + (len(token) if kind == 10 else 0)] = token
    return bytes(array)


def mutate_text(rng: random.Random, text: str) -> str:
    """Another text: one that parsers stumble over, or a variation."""
    kind = rng.randrange(5)
    if kind < 2 or not text:
        return rng.choice(_TEXTS)
    if kind == 2:
        return text * rng.choice((2, 100))
    at = rng.randrange(len(text))
    if kind == 3:
        return text[:at] + rng.choice(_TEXTS) + text[at:]
    return text[:at]


def mutate_json(rng: random.Random, tree: Any) -> Any:
    """Changes a value somewhere in a JSON tree; the tree itself stays as it is."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.06:
        return _other_value(rng, tree)
    if isinstance(tree, list):
        items = list(tree)
        at = rng.randrange(len(items))
        kind = rng.randrange(6)
        if kind == 0:
            del items[at]
        elif kind == 1:
            items[at:at] = [items[rng.randrange(len(items))]] * rng.choice((1, 1, 40))
        elif kind == 2:
            rng.shuffle(items)
        else:
            items[at] = mutate_json(rng, items[at])
        return items
    changed = dict(tree)
    name = rng.choice(list(changed))
    kind = rng.randrange(12)
    if kind == 0:
        del changed[name]
    elif kind == 1:
        changed[mutate_text(rng, name)] = changed.pop(name)
    elif kind == 2:
        changed[mutate_text(rng, name)] = rng.choice(_VALUES)
    elif kind == 3:
        changed[name] = changed[rng.choice(list(changed))]
    else:
        changed[name] = mutate_json(rng, changed[name])
    return changed


def _other_value(rng: random.Random, value: Any) -> Any:
    kind = rng.randrange(6)
    if kind == 0:
        return [value]
    if kind == 1:
        return {"a": value}
    if kind == 2 and isinstance(value, str):
        return mutate_text(rng, value)
    if kind == 2 and isinstance(value, int | float) and abs(value) < 1e18:
        return rng.choice((value + 1, value - 1, -value, value // 2, str(value)[:99]))
    if kind == 3:
        number = rng.choice(_NUMBERS)
        return -number if rng.random() < 0.3 else number
    return rng.choice(_VALUES)


def json_bytes(rng: random.Random, tree: Any, mutate: bool = True) -> bytes:
    """A JSON file: of a tree, of a mutated one, or not quite JSON."""
    if mutate:
        for _ in range(times(rng)):
            tree = mutate_json(rng, tree)
    data = json.dumps(tree).encode()
    kind = rng.randrange(40) if mutate else -1
    if kind in (0, 1, 2):
        return mutate_bytes(rng, data, _TOKENS)
    if kind == 3:
        return b"[" * rng.choice((100, 3000, 100_000)) + data
    if kind == 4:
        return rng.choice((b"", b"\xef\xbb\xbf" + data, data + data, b"\0", b"null"))
    if kind == 5:
        return json.dumps(tree).encode(rng.choice(("utf-16", "utf-32", "utf-7")))
    if kind == 6:
        return data.replace(b"1", b"1" * rng.choice((30, 400, 5000)), 1)
    if kind == 7 and data.startswith(b"{"):  # The last of two equal names counts.
        return data[:-1] + b", " + data[1:]
    return data


_TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\u0000", b"\\ud800", b"NaN"),
    *(b"-Infinity", b"1e999", b"-0", b"true", b"null", b"0.1e-400", b"\\", b"/*"),
)
