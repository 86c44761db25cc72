"""The images of one shard, read at random: tar, array_record, parquet, lists of files.

A reader holds one shard's index in memory, never its images. Threads may share it.
"""

import io
import os
import re
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cnn_flax.weights.regular import check_regular
from train.data.decode import DecodeError
from train.data.record_shards import ArrayRecordShard, ParquetShard
from train.data.source import SourceError

__all__ = ["SHARD_KINDS", "ShardReader", "open_shard", "read_lines", "shard_kind"]

SHARD_KINDS = (
    ".tar, .array_record, .parquet, or .txt, a list of image files, one per line"
)

_IMAGE_SUFFIXES = frozenset("bmp gif jpeg jpg pgm png ppm tif tiff webp".split())


class ShardReader(Protocol):
    """One shard.

    Attributes:
      names: each image's name in the shard: the path in a tar without its suffix, a
        line of a list, or the number of a record.
    """

    @property
    def names(self) -> Sequence[str]:
        """The images' names, in order."""
        ...

    def read(self, index: int) -> bytes:
        """The image's file; raises `DecodeError` if it cannot be read."""
        ...


def shard_kind(path: str | os.PathLike[str]) -> str:
    """The kind of a shard, by its name: tar, array_record, parquet or txt.

    Raises:
      SourceError: if its name has none of the known endings.
    """
    name = Path(path).name
    if found := re.search(
        r"\.(tar|array_record|parquet|txt)(-\d+-of-\d+)?$", name, re.IGNORECASE
    ):
        return found[1].lower()
    hint = ""
    if re.search(r"\.(tgz|tar\.\w+)$", name):
        hint = "; a compressed tar has no random access: decompress it"
    raise SourceError(f"{path} is not a shard ({SHARD_KINDS}){hint}")


def open_shard(path: Path) -> ShardReader:
    """Opens a shard: reads its index, and none of its images.

    Raises:
      SourceError: if it does not exist, is damaged or holds no image.
    """
    kind = shard_kind(path)
    try:
        check_regular(path)
        reader = _READERS[kind](path)
    except SourceError:
        raise
    except Exception as error:  # On damaged files the parsers raise nearly anything.
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise SourceError(f"{path} cannot be read as a shard: {reason}") from error
    if not len(reader.names):
        raise SourceError(f"{path}: there is no image in it")
    return reader


class _BoundedFile(io.BufferedReader):
    """A file that makes no room for more than it holds, whatever a header says."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 0:
            size = min(size, max(self._size - self.tell(), 0))
        return super().read(size)


class _Tar:
    """A tar, as of WebDataset: the first image of each sample, by `KEY.SUFFIX`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.names: list[str] = []
        places: list[tuple[int, int]] = []
        file = _BoundedFile(open(path, "rb", buffering=0))
        with file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # pyright: ignore  # Or it keeps them all.
                key, suffix = _split_key(member.name)
                is_image = member.isfile() and suffix in _IMAGE_SUFFIXES
                if not is_image or _is_hidden(member.name):
                    continue
                if self.names and self.names[-1] == key:
                    continue
                self.names.append(key)
                places.append((member.offset_data, member.size))
        self._places = np.asarray(places, np.int64).reshape(-1, 2)
        self._file = open(path, "rb", buffering=0)
        size = os.fstat(self._file.fileno()).st_size
        if len(places) and self._places.sum(axis=1).max() > size:
            raise SourceError(f"{path} cannot be read as a shard: it is truncated")

    def read(self, index: int) -> bytes:
        start, size = self._places[index].tolist()
        name = f"{self._path}[{self.names[index]}]"
        try:
            data = os.pread(self._file.fileno(), size, start)
        except OSError as error:
            raise DecodeError(name, error.strerror or str(error)) from error
        if len(data) < size:
            raise DecodeError(name, f"{len(data)} of its {size} bytes are there")
        return data

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class _List:
    """Image files, one path per line, relative to the list's folder."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self.names = read_lines(path)

    def read(self, index: int) -> bytes:
        path = self._folder / self.names[index]
        try:
            check_regular(path)
            return path.read_bytes()
        except OSError as error:
            raise DecodeError(str(path), error.strerror or str(error)) from error
        except ValueError as error:  # The line has a null character.
            raise DecodeError(str(path), str(error)) from error


_READERS: dict[str, Callable[[Path], ShardReader]] = {
    "tar": _Tar,
    "array_record": ArrayRecordShard,
    "parquet": ParquetShard,
    "txt": _List,
}


def read_lines(path: Path) -> list[str]:
    r"""The lines of a list of files, without blanks around them and empty lines.

    Lines end with `\n` or `\r\n` only: any other character may be part of a path.

    Raises:
      OSError: if the file cannot be read.
    """
    check_regular(path)
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    return [name for line in text.split("\n") if (name := line.strip(" \t\r"))]


def _is_hidden(name: str) -> bool:
    """Whether a tar's member is a hidden file, as macOS adds: `a/._b.jpg`."""
    return name.rpartition("/")[2].startswith(".")


def _split_key(name: str) -> tuple[str, str]:
    """The key of a tar's member, up to the first dot of its file name, and its suffix.

    https://github.com/webdataset/webdataset: `a/b.left.jpg` has the key `a/b`.
    """
    folder, slash, file = name.rpartition("/")
    key, _, rest = file.partition(".")
    return folder + slash + key, rest.rpartition(".")[2].lower()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
