"""Shards of records, without names: array_record and parquet."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.data.decode import DecodeError
from train.data.source import SourceError

__all__ = ["ArrayRecordShard", "ParquetShard"]

_IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
_EXAMPLE_FEATURES = ("image", "image/encoded", "jpg", "png")
# What the files of the usual formats begin with; a tf.train.Example begins with a tag.
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM")
_CACHED_ROW_GROUPS = 2


class ArrayRecordShard:
    """Records that are image files, or tf.train.Examples with one (tfds)."""

    def __init__(self, path: Path) -> None:
        try:
            from array_record.python.array_record_module import ArrayRecordReader
        except ModuleNotFoundError as error:
            raise SourceError(
                f'{path} needs array_record: pip install "array_record"'
            ) from error
        if not path.is_file():  # array_record would abort the process.
            raise FileNotFoundError(f"{path}: no such file")
        self._path = path
        options = "readahead_buffer_size:0,max_parallelism:0"
        self._reader = ArrayRecordReader(str(path), options)
        if not self._reader.ok():
            raise SourceError(f"{path} cannot be read as a shard: it is damaged")
        self.names = _Numbers(self._reader.num_records())
        self._lock = threading.Lock()

    def read(self, index: int) -> bytes:
        """The image's file; raises `DecodeError` if it cannot be read."""
        try:
            with self._lock:
                (record,) = self._reader.read([index])
        except RuntimeError as error:
            raise _damaged(self._path, index, error) from error
        return _image_of(record, f"{self._path}[{index}]")

    def __del__(self) -> None:
        if hasattr(self, "_reader") and self._reader.ok():
            self._reader.close()


class ParquetShard:
    """A column of image files: bytes, or a struct with `bytes` (Hugging Face)."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._path = path
        # Where a file is mapped, an error on reading ends the process.
        self._file: Any = parquet.ParquetFile(path, memory_map=False)
        self._column, self._is_struct = _image_column(path, self._file.schema_arrow)
        metadata = self._file.metadata
        groups = [
            metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
        ]
        if (least := min([metadata.num_rows, *groups])) < 0:
            raise SourceError(
                f"{path} cannot be read as a shard: it says that it has {least} rows"
            )
        self._starts = np.cumsum([0, *groups])
        self.names = _Numbers(metadata.num_rows)
        self._groups: dict[int, Any] = {}
        self._lock = threading.Lock()

    def read(self, index: int) -> bytes:
        """The image's file; raises `DecodeError` if it cannot be read."""
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        try:
            with self._lock:
                value = self._rows(group)[index - int(self._starts[group])].as_py()
        except Exception as error:  # On damaged files pyarrow raises nearly anything.
            raise _damaged(self._path, index, error) from error
        value = value and (value["bytes"] if self._is_struct else value)
        if value is None:
            raise DecodeError(f"{self._path}[{index}]", "it is null")
        return value

    def _rows(self, group: int) -> Any:
        """The images of a row group; the last few groups stay in memory."""
        if group not in self._groups:
            while len(self._groups) >= _CACHED_ROW_GROUPS:
                del self._groups[next(iter(self._groups))]
            table = self._file.read_row_group(group, columns=[self._column])
            self._groups[group] = table.column(0)
        return self._groups[group]

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class _Numbers(Sequence[str]):
    """The numbers of records, as names."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return str(range(self._count)[index])


def _image_column(path: Path, schema: Any) -> tuple[str, bool]:
    """The column that holds image files, and whether it is a struct with `bytes`."""
    import pyarrow

    found = {}
    for field in schema:
        kind = field.type
        is_struct = pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        binary = pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
        if is_struct or binary:
            found[field.name] = is_struct
    named = [name for name in found if name in _IMAGE_COLUMNS] or list(found)
    if len(named) != 1:
        raise SourceError(
            f"{path} must have one column of image files, bytes or struct<bytes>; its "
            f"columns are {', '.join(schema.names)}"
        )
    return named[0], found[named[0]]


def _image_of(record: bytes, name: str) -> bytes:
    """The image of a record: the record itself, or the one of a tf.train.Example."""
    if record.startswith(_IMAGE_STARTS):
        return record
    from google.protobuf import message
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        # protobuf creates the class when the module is imported.
        parse = tf_example_pb2.Example.FromString  # pyright: ignore
        features = parse(record).features.feature
    except message.DecodeError as error:
        raise DecodeError(name, "neither an image nor a tf.train.Example") from error
    for feature in _EXAMPLE_FEATURES:
        if feature in features and features[feature].bytes_list.value:
            return features[feature].bytes_list.value[0]
    known = ", ".join(sorted(features)) or "none"
    raise DecodeError(name, f"a tf.train.Example without an image; it has: {known}")


def _damaged(path: Path, index: int, error: Exception) -> DecodeError:
    return DecodeError(
        f"{path}[{index}]", f"damaged record: {error}".partition("\n")[0]
    )
