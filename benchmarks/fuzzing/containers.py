"""Files made of parts, each mutated on its own, so that checks of the whole pass."""

import functools
import gzip
import io
import json
import random
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.fuzzing.mutators import json_bytes, mutate_bytes, mutate_text, times

__all__ = [
    "Entry",
    "gzipped",
    "idx",
    "mutate_idx",
    "mutate_npy",
    "mutate_png",
    "mutate_segments",
    "mutate_tar",
    "mutate_zip",
    "npy",
    "safetensors_file",
    "zipped",
]

# A member of an archive: name, compression method, contents.
Entry = tuple[str, int, bytes]

_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_METHODS = (_STORED, _DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_COUNTS = (0, 1, 2, 3, 7, 8, 255, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


@functools.cache
def _zeros(megabytes: int) -> bytes:
    """Zeros, deflated: a bomb of the lowest cost."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = bytes(2**20)
    parts = [packer.compress(part) for _ in range(megabytes)]
    return b"".join([*parts, packer.flush()])


def zipped(entries: Sequence[Entry]) -> bytes:
    """A zip archive, the same bytes at any time."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # Two members may have one name.
        for name, method, data in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, data)
    return stream.getvalue()


def mutate_zip(rng: random.Random, entries: Sequence[Entry]) -> bytes:
    """An archive with other members, then with other bytes in its directories."""
    changed = list(entries)
    if rng.random() < 0.5:
        for _ in range(times(rng)):
            at = rng.randrange(len(changed))
            name, method, data = changed[at]
            kind = rng.randrange(7)
            if kind == 0:
                del changed[at]
            elif kind == 1:
                changed.insert(at, rng.choice(changed))
            elif kind == 2:
                name = mutate_text(rng, name).encode("utf-8", "ignore").decode()
                changed[at] = (name[:200].replace("\0", "") or "a", method, data)
            elif kind == 3:
                changed[at] = (name, rng.choice(_METHODS), data)
            elif kind == 4:
                changed[at] = (name, method, rng.choice(changed)[2])
            else:
                changed[at] = (name, method, mutate_bytes(rng, data))
            if not changed:
                break
    data = zipped(changed)
    kind = rng.randrange(8)
    if kind < 2:
        return mutate_bytes(rng, data, _ZIP_TOKENS)
    if kind < 4:
        return _other_sizes(rng, data)
    if kind == 4 and rng.random() < 0.02 and changed:
        return _bomb(rng, changed[0][0])
    return data


_ZIP_TOKENS = (
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"PK\x06\x07",
)


def _other_sizes(rng: random.Random, data: bytes) -> bytes:
    """Changes a field of a record: a size, an offset, a method, a flag."""
    array = bytearray(data)
    places = []
    for mark in (b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04"):
        at = array.find(mark)
        while at >= 0:
            places.append(at)
            at = array.find(mark, at + 4)
    for _ in range(times(rng)):
        at = rng.choice(places or [0]) + rng.choice((4, 6, 8, 10, 16, 20, 24, 28, 42))
        width = rng.choice((2, 4, 4))
        number = rng.choice(_COUNTS) % 256**width
        array[at : at + width] = number.to_bytes(width, "little")
    return bytes(array)


def _bomb(rng: random.Random, name: str) -> bytes:
    """An archive of one member that unpacks to many megabytes of zeros."""
    megabytes = 100
    packed = _zeros(megabytes)
    size = megabytes * 2**20
    claimed = rng.choice((size, 100, 2**26, 2**32 - 1))
    check = zlib.crc32(b"") if claimed != size else rng.getrandbits(32)
    encoded = name.encode()
    fields = struct.pack(
        "<HHHIIIHH", 8, 0, 33, check, len(packed), claimed, len(name), 0
    )
    local = b"PK\x03\x04" + struct.pack("<HH", 20, 0) + fields + encoded
    central = b"PK\x01\x02" + struct.pack("<HHH", 20, 20, 0) + fields
    central += struct.pack("<HHHII", 0, 0, 0, 0, 0) + encoded
    start = len(local) + len(packed)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), start, 0)
    return local + packed + central + end


def gzipped(data: bytes) -> bytes:
    """Gzip, the same bytes at any time."""
    return gzip.compress(data, 6, mtime=0)


def npy(array: np.ndarray) -> bytes:
    """A file of `numpy.save`."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def mutate_npy(rng: random.Random, data: bytes) -> bytes:
    """Changes the header of a file of `numpy.save` (version 1), or bytes of it."""
    kind = rng.randrange(8)
    length = 10 + int.from_bytes(data[8:10], "little")
    if kind == 0:
        return mutate_bytes(rng, data, _NPY_TOKENS, length)
    header, body = data[10:length], data[length:]
    if kind == 1:
        body = mutate_bytes(rng, body)
    elif kind < 5:
        header = mutate_bytes(rng, header, _NPY_TOKENS)
    else:
        parts = {
            "descr": rng.choice(_DESCRIPTIONS),
            "fortran_order": rng.choice((b"False", b"True", b"0", b"None")),
            "shape": rng.choice(_SHAPES),
        }
        if rng.random() < 0.2:
            del parts[rng.choice(list(parts))]
        fields = b", ".join(f"'{n}': ".encode() + v for n, v in parts.items())
        header = b"{" + fields + b"}\n"
    version = rng.choice((1, 1, 1, 1, 2, 3, 0, 255))
    width = 2 if version == 1 else 4
    size = len(header) if rng.random() < 0.9 else rng.choice(_COUNTS)
    size %= 256**width
    return (
        b"\x93NUMPY"
        + bytes((version, 0))
        + size.to_bytes(width, "little")
        + header
        + body
    )


_DESCRIPTIONS = (
    *(b"'<f4'", b"'|u1'", b"'<i8'", b"'>f8'", b"'|O'", b"'<U4'", b"'|S3'", b"'|V0'"),
    *(b"'<U0'", b"'<M8[s]'", b"[('a', '<f4')]", b"[('a', '|O')]", b"'<U999999999'"),
    *(
        b"'<c16'",
        b"'|b1'",
        b"''",
        b"None",
        b"3",
        b"'<f2', 'x'",
        b"'<U9999999999999999'",
    ),
)
_SHAPES = (
    *(
        b"(3,)",
        b"()",
        b"(0,)",
        b"(4, 2)",
        b"(2, 2, 2)",
        b"(-1,)",
        b"(1.5,)",
        b"3",
        b"[3]",
    ),
    *(
        b"(9223372036854775807,)",
        b"(9223372036854775808, 0)",
        b"(4294967296, 4294967296)",
    ),
    *(
        b"(" + b"1, " * 65 + b")",
        b"(0, 99999999999999999999999)",
        b"(True,)",
        b"('a',)",
    ),
    *(b"(1000000000,)", b"(" + b"9" * 5000 + b",)", b"(None,)", b"(-4, -2)"),
)
_NPY_TOKENS = (
    *(b"(", b")", b"'", b"{", b"}", b",", b"\n", b"None", b"'|O'", b"((((" * 50, b"-"),
    *(
        b"'descr'",
        b"'shape'",
        b"lambda: 0",
        b"__import__('os')",
        b"1e9",
        b"10**9",
        b"\0",
    ),
)


def safetensors_file(rng: random.Random | None, header: Any, body: bytes) -> bytes:
    """A safetensors file; with `rng`, one whose header, length or bytes are changed."""
    text = json.dumps(header).encode()
    if rng is None:
        return struct.pack("<Q", len(text)) + text + body
    kind = rng.randrange(10)
    if kind == 0:
        return mutate_bytes(rng, struct.pack("<Q", len(text)) + text + body)
    if kind < 8:
        text = json_bytes(rng, header)
    else:
        text = mutate_bytes(rng, text)
    length = len(text)
    if rng.random() < 0.1:
        length = (
            rng.choice((*_COUNTS, 2**63, 2**64 - 1, length + 1, length - 1)) % 2**64
        )
    if rng.random() < 0.2:
        body = body[: rng.randrange(len(body) + 1)] * rng.choice((1, 1, 2))
    return struct.pack("<Q", length) + text + body


def idx(array: np.ndarray) -> bytes:
    """A file in MNIST's format, uint8."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


def mutate_idx(rng: random.Random, data: bytes, gzip_it: bool) -> bytes:
    """Changes the sizes or any bytes, before or after compression."""
    if gzip_it and rng.random() < 0.004:
        return _idx_bomb(rng, data)
    if rng.random() < 0.7:
        data = mutate_bytes(rng, data, head=4 + 4 * data[3])
    if not gzip_it:
        return data
    packed = gzipped(data)
    return mutate_bytes(rng, packed, head=10) if rng.random() < 0.4 else packed


def _idx_bomb(rng: random.Random, data: bytes) -> bytes:
    head = bytes((0, 0, 8, data[3]))
    sizes = [rng.choice((1, 100, 10_000, 2**20, 2**31)) for _ in range(data[3])]
    head += struct.pack(f">{data[3]}I", *sizes)
    packed = bytes.fromhex("1f8b08000000000000ff")
    # Two streams, one after the other, are one file.
    return gzipped(head) + packed + _zeros(100) + bytes(8)


def mutate_tar(rng: random.Random, members: Sequence[tuple[str, bytes]]) -> bytes:
    """A tar with other members, kinds, sizes and checksums."""
    stream = io.BytesIO()
    form = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name, data in members:
            if rng.random() < 0.2:
                name = mutate_text(rng, name)[:300]
            if rng.random() < 0.3:
                data = mutate_bytes(rng, data, head=64)
            info = tarfile.TarInfo(name.replace("\0", ""))
            if rng.random() < 0.1:
                info.type = rng.choice((b"1", b"2", b"3", b"4", b"5", b"6", b"L", b"S"))
                info.linkname = rng.choice(("../x", "/etc/passwd", name))
            info.size = len(data)
            if rng.random() < 0.1:
                info.pax_headers = {rng.choice(_PAX): mutate_text(rng, "1")}
            try:
                tar.addfile(info, io.BytesIO(data))
            except (UnicodeError, ValueError):
                continue
    array = bytearray(stream.getvalue())
    if rng.random() < 0.6 and array:
        for _ in range(times(rng)):
            block = 512 * rng.randrange(max(1, len(array) // 512))
            field, width = rng.choice(
                ((0, 100), (124, 12), (156, 1), (257, 8), (345, 9))
            )
            at = block + field + rng.randrange(width)
            array[at : at + 1] = bytes([rng.choice(b"\0\1\x80\xff 01789xLKgSV5")])
            if rng.random() < 0.8:  # The checksum of a header that was changed.
                head = array[block : block + 512]
                head[148:156] = b" " * 8
                array[block + 148 : block + 156] = b"%06o\0 " % sum(head)
    data = bytes(array)
    return mutate_bytes(rng, data) if rng.random() < 0.3 else data


_PAX = (
    "path",
    "size",
    "GNU.sparse.size",
    "GNU.sparse.map",
    "GNU.sparse.major",
    "mtime",
)


def mutate_png(rng: random.Random, data: bytes) -> bytes:
    """Changes chunks of a PNG, whose checksums mostly stay right."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(times(rng)):
        if not chunks:
            break
        at = rng.randrange(len(chunks))
        kind, body = chunks[at]
        choice = rng.randrange(8)
        if choice == 0:
            del chunks[at]
        elif choice == 1:
            chunks.insert(rng.randrange(len(chunks)), chunks[at])
        elif choice == 2:
            chunks[at] = (rng.choice(_PNG_KINDS), body)
        elif choice == 3:
            chunks.insert(
                at, (rng.choice(_PNG_KINDS), rng.randbytes(rng.randrange(40)))
            )
        elif choice == 4 and kind == b"IDAT":
            try:
                pixels = mutate_bytes(rng, zlib.decompressobj().decompress(body, 10**5))
            except zlib.error:
                pixels = body
            chunks[at] = (kind, zlib.compress(pixels, 1))
        else:
            chunks[at] = (kind, mutate_bytes(rng, body))
    parts = [data[:8]]
    for kind, body in chunks:
        check = zlib.crc32(kind + body) if rng.random() < 0.97 else 0
        parts.append(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)
        )
    return b"".join(parts)


_PNG_KINDS = (
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"iCCP", b"zTXt", b"iTXt"),
    *(b"tEXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"pHYs", b"sRGB", b"cHRM", b"abCd"),
)


def mutate_segments(rng: random.Random, data: bytes) -> bytes:
    """Changes segments of a JPEG before its scan, or any of its bytes."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append((data[at + 1], data[at + 4 : at + 2 + size]))
        at += 2 + size
    scan = data[at:]
    if rng.random() < 0.3:
        scan = mutate_bytes(rng, scan, (b"\xff\xd9", b"\xff\xd0", b"\xff\xda"))
    for _ in range(times(rng)):
        if not segments:
            break
        at = rng.randrange(len(segments))
        kind, body = segments[at]
        choice = rng.randrange(6)
        if choice == 0:
            del segments[at]
        elif choice == 1:
            segments.insert(rng.randrange(len(segments)), segments[at])
        elif choice == 2:
            segments[at] = (
                rng.choice((0xC0, 0xC2, 0xC9, 0xE0, 0xE1, 0xE2, 0xED)),
                body,
            )
        else:
            segments[at] = (kind, mutate_bytes(rng, body))
    parts = [data[:2]]
    for kind, body in segments:
        size = len(body) + 2
        if rng.random() < 0.05:
            size = rng.choice((0, 1, 2, 65535))
        parts.append(struct.pack(">BBH", 0xFF, kind, size % 65536) + body)
    return b"".join([*parts, scan])
