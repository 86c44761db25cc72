"""Sets of shards: files of many images each, listed by shard and never by image."""

import glob
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnn_flax.weights.regular import check_regular
from train.data.decode import Pixels, TargetSide, decode_image
from train.data.shard_readers import ShardReader, open_shard, read_lines, shard_kind
from train.data.source import Source, SourceError

__all__ = ["PREFIX", "Shards", "image_keys", "list_shards", "shard_digest", "source_of"]

PREFIX = "shards:"

_SAMPLES, _SAMPLE_BYTES = 16, 4096


@dataclass(frozen=True)
class Shards:
    """A list of shards.

    Attributes:
      spec: what the user wrote, for messages.
      root: the folder that the names are relative to.
      names: path of each shard below `root`, in order.
    """

    spec: str
    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, name: str) -> Path:
        """Path of a shard."""
        return self.root / name

    def part(self, index: int, count: int) -> "Shards":
        """Every `count`-th shard from the `index`-th on: one worker's share."""
        return replace(self, names=self.names[index::count])


def list_shards(spec: str) -> Shards:
    """Lists shards; none of them is opened.

    Args:
      spec: `shards:PATTERN`, as `shards:/data/train-*.tar` (`**` is any number of
        folders), sorted by name; or `shards:@FILE`, a file with one path per line,
        relative to the file's folder, in its order.

    Raises:
      SourceError: if there are none, one is no shard by its name, or one is listed
        twice.
    """
    text = spec.removeprefix(PREFIX)
    if text.startswith("@"):
        root, names = _from_list(spec, Path(text[1:]).expanduser())
    else:
        root, names = _from_pattern(spec, os.path.expanduser(text))
    if not names:
        raise SourceError(f"{spec}: no shard matches")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SourceError(f"{spec} has {twice} twice")
    for name in names:
        shard_kind(name)
    return Shards(spec, root, tuple(names))


def _from_list(spec: str, path: Path) -> tuple[Path, list[str]]:
    try:
        lines = [os.path.normpath(line) for line in read_lines(path)]
    except OSError as error:
        raise SourceError(f"{spec}: {path}: {error.strerror}") from error
    if any(os.path.isabs(line) or line.startswith("..") for line in lines):
        absolute = (os.path.abspath(path.parent / line) for line in lines)
        return Path("/"), [line.lstrip("/") for line in absolute]
    return path.parent, lines


def _from_pattern(spec: str, pattern: str) -> tuple[Path, list[str]]:
    if os.path.isdir(pattern):
        raise SourceError(
            f"{spec} is a folder: give a pattern, such as {spec.rstrip('/')}/*.tar"
        )
    parts = Path(pattern).parts
    fixed = 0
    while fixed < len(parts) - 1 and not glob.has_magic(parts[fixed]):
        fixed += 1
    root = Path(*parts[:fixed]) if fixed else Path(".")
    relative = os.path.join(*parts[fixed:]) if parts else ""
    found = glob.iglob(relative, root_dir=root, recursive=True)
    return root, sorted(name for name in found if (root / name).is_file())


def shard_digest(path: Path) -> str:
    """A hash that identifies a shard: of its size and of 16 samples of 4 KiB.

    The samples are spread evenly, the first and the last bytes included, where tar,
    array_record and parquet have their indices: it is as cheap for a shard of a
    gigabyte as for one of a megabyte, but a change of a few bytes may go unnoticed.

    Raises:
      SourceError: if the shard cannot be read.
    """
    try:
        check_regular(path)
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(size.to_bytes(8, "little"))
            last = max(size - _SAMPLE_BYTES, 0)
            for i in range(_SAMPLES):
                offset = last * i // (_SAMPLES - 1)
                digest.update(os.pread(file.fileno(), _SAMPLE_BYTES, offset))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def image_keys(names: Iterable[str]) -> np.ndarray:
    """The images' keys, uint64 `[n]`: the first 8 bytes of BLAKE2b of each name."""
    hashes = (hashlib.blake2b(os.fsencode(n), digest_size=8).digest() for n in names)
    return np.frombuffer(b"".join(hashes), "<u8")


def source_of(path: Path, reader: ShardReader | None = None) -> Source:
    """One shard as a set of unlabelled images.

    Args:
      path: the shard.
      reader: its reader, if it is open already.

    Raises:
      SourceError: if the shard cannot be read.
    """
    shard = open_shard(path) if reader is None else reader

    def example(index: int, target_side: TargetSide) -> tuple[Pixels, int]:
        return decode_image(shard.read(index), name(index), target_side), -1

    def name(index: int) -> str:
        return f"{path}[{shard.names[index]}]"

    names: Sequence[str] = shard.names
    return Source(
        str(path),
        (),
        len(names),
        example=example,
        name=name,
        find_labels=lambda: np.full(len(names), -1, np.int32),
        channels=3,
        native_size=None,
    )
