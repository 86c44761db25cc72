"""Sets that tensorflow-datasets has prepared, read without TensorFlow."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from train.data.decode import Least, Pixels, decode_image
from train.data.records import TFRecords
from train.data.source import SPLIT_NAMES, Source, SourceError, Splits

__all__ = ["tfds"]


def tfds(path: str) -> Splits:
    """A set prepared by tensorflow-datasets: `NAME[/CONFIG][:VERSION][@DIR]`.

    Array_record and parquet are read through its data source, TFRecord by hand. DIR is
    tensorflow-datasets' own folder where it is left out. The set must have one image
    and one class label an example.

    Raises:
      SourceError: the set is not there, or has other features.
    """
    spec = f"tfds:{path}"
    name, _, folder = path.partition("@")
    builder = _builder(spec, name, folder or None)
    image, label = _features(spec, builder.info)
    splits = {}
    for theirs, info in builder.info.splits.items():
        ours = SPLIT_NAMES.get(theirs)
        if ours is None or ours in splits or not info.num_examples:
            continue
        examples = _Examples(spec, theirs, _records(builder, theirs), image, label)
        # The test split of a contest has no labels, only -1.
        if theirs != "test" or examples.label(0) >= 0:
            features = builder.info.features
            splits[ours] = partial(_open, examples, features[image], features[label])
    return splits


def _builder(spec: str, name: str, folder: str | None) -> Any:
    from tensorflow_datasets.core.read_only_builder import builder_from_files
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    if not name:
        raise SourceError(f"{spec} names no set: tfds:NAME or tfds:NAME@DIR")
    folder = folder and os.path.expanduser(folder)
    where = {"data_dir": folder} if folder else {}
    try:
        return builder_from_files(name, **where)
    except DatasetNotFoundError as error:
        option = f" --data_dir={folder}" if folder else ""
        raise SourceError(
            f"{spec} is not there, or not prepared; to prepare it: "
            f"tfds build {name} --file_format=array_record{option} "
            '(needs pip install "cnn-flax[prepare]")'
        ) from error


def _features(spec: str, info: Any) -> tuple[str, str]:
    """The names of the image and of the class label."""
    from tensorflow_datasets.core.features import ClassLabel, Image

    usual = info.supervised_keys or ()
    found = []
    for kind in (Image, ClassLabel):
        names = [n for n, value in info.features.items() if isinstance(value, kind)]
        # CIFAR-100 has two labels, fine and coarse, of which one is the usual.
        names = [name for name in names if name in usual] or names
        if len(names) != 1:
            raise SourceError(
                f"{spec} has {len(names)} features of type {kind.__name__}, but one is "
                f"needed; its features are {', '.join(info.features)}"
            )
        found += names
    return found[0], found[1]


def _records(builder: Any, split: str) -> Any:
    """The records of a split, `bytes` by number."""
    from tensorflow_datasets.core.decode import DeserializeMethod
    from tensorflow_datasets.core.file_adapters import FileFormat

    info = builder.info
    if info.available_file_formats() & FileFormat.with_random_access():
        return builder.as_data_source(
            split, deserialize_method=DeserializeMethod.RAW_BYTES
        )
    if info.file_format is not FileFormat.TFRECORD:
        raise SourceError(
            f"{builder.data_dir} is in the format {info.file_format.value}, which "
            "cannot be read; array_record, parquet and tfrecord can"
        )
    files = info.splits[split]
    return TFRecords([str(path) for path in files.filepaths], files.shard_lengths)


class _Examples:
    """One split's examples: the image's bytes and the label."""

    def __init__(
        self, spec: str, split: str, records: Any, image: str, label: str
    ) -> None:
        self.spec = spec
        self._split = split
        self._records = records
        self._image = image
        self._label = label

    def __len__(self) -> int:
        return len(self._records)

    def name(self, index: int) -> str:
        return f"{self.spec} {self._split}[{index}]"

    def example(self, index: int) -> tuple[bytes, int]:
        """Encoded image and label; raises `DecodeError` if the record is damaged."""
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            # The class is made when the module is imported.
            parse = tf_example_pb2.Example.FromString  # pyright: ignore
            record = parse(bytes(self._records[index]))
            features = record.features.feature
            image = features[self._image].bytes_list.value[0]
            return image, features[self._label].int64_list.value[0]
        # RuntimeError: array_record's word for a damaged file.
        except (DecodeError, EOFError, IndexError, OSError, RuntimeError) as error:
            raise DecodeError(self.name(index), f"damaged record: {error}") from error

    def label(self, index: int) -> int:
        return self.example(index)[1]

    def labels(self) -> np.ndarray:
        with ThreadPoolExecutor() as pool:
            return np.asarray(list(pool.map(self.label, range(len(self)))), np.int32)


def _open(examples: _Examples, image: Any, label: Any) -> Source:
    classes = tuple(label.names)
    height, width, channels = image.shape

    def example(index: int, least: Least) -> tuple[Pixels, int]:
        encoded, label = examples.example(index)
        if not 0 <= label < len(classes):
            raise SourceError(
                f"{examples.spec}: label {label} at {examples.name(index)} is out of "
                f"range: the classes are 0 to {len(classes) - 1}"
            )
        return decode_image(encoded, examples.name(index), least), label

    return Source(
        examples.spec,
        classes,
        len(examples),
        example=example,
        name=examples.name,
        find_labels=examples.labels,
        channels=1 if channels == 1 else 3,
        native_size=(height, width) if height and width else None,
    )
