"""Sets prepared by tensorflow-datasets, read without TensorFlow."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from cnn_flax.installing import install_command
from train.data.decode import DecodeError, Pixels, TargetSide, decode_image
from train.data.source import Source, SourceError, Splits, split_name
from train.data.tfrecord import TFRecords

__all__ = ["tfds"]


def tfds(path: str) -> Splits:
    """A set prepared by tensorflow-datasets: `NAME[/CONFIG][:VERSION][@DIR]`.

    array_record and parquet are read through its data source, TFRecord by our own
    reader. DIR defaults to tensorflow-datasets' own folder. The set must have one image
    and one class label per example.

    Raises:
      SourceError: if the set does not exist, or has other features.
    """
    spec = f"tfds:{path}"
    name, _, folder = path.partition("@")
    builder = _builder(spec, name, folder or None)
    image, label = _features(spec, builder.info)
    splits = {}
    for theirs, info in builder.info.splits.items():
        ours = split_name(theirs)
        if ours is None or ours in splits or not info.num_examples:
            continue
        examples = _Examples(spec, theirs, _records(builder, theirs), image, label)
        # Test splits of competitions have no labels, only -1.
        if ours != "test" or examples.label(0) >= 0:
            features = builder.info.features
            splits[ours] = partial(_open, examples, features[image], features[label])
    return splits


def _builder(spec: str, name: str, folder: str | None) -> Any:
    from tensorflow_datasets.core.read_only_builder import builder_from_files
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    if not name:
        raise SourceError(f"{spec} names no set: give tfds:NAME or tfds:NAME@DIR")
    folder = folder and os.path.expanduser(folder)
    options = {"data_dir": folder} if folder else {}
    try:
        return builder_from_files(name, **options)
    except DatasetNotFoundError as error:
        flag = f" --data_dir={folder}" if folder else ""
        raise SourceError(
            f"{spec} does not exist or is not prepared; to prepare it: "
            f"tfds build {name} --file_format=array_record{flag} "
            f"(needs {install_command('prepare')})"
        ) from error


def _features(spec: str, info: Any) -> tuple[str, str]:
    """The names of the image and class label features."""
    from tensorflow_datasets.core.features import ClassLabel, Image

    supervised = info.supervised_keys or ()
    found = []
    for kind in (Image, ClassLabel):
        names = [n for n, value in info.features.items() if isinstance(value, kind)]
        # CIFAR-100 has two labels, fine and coarse; one is a supervised key.
        names = [name for name in names if name in supervised] or names
        if len(names) != 1:
            raise SourceError(
                f"{spec} must have one feature of type {kind.__name__}, but has "
                f"{len(names)}; its features are {', '.join(info.features)}"
            )
        found += names
    return found[0], found[1]


def _records(builder: Any, split: str) -> Any:
    """The records of a split: a sequence of `bytes`."""
    from tensorflow_datasets.core.decode import DeserializeMethod
    from tensorflow_datasets.core.file_adapters import FileFormat

    info = builder.info
    if info.available_file_formats() & FileFormat.with_random_access():
        return builder.as_data_source(
            split, deserialize_method=DeserializeMethod.RAW_BYTES
        )
    if info.file_format is not FileFormat.TFRECORD:
        raise SourceError(
            f"{builder.data_dir} is in the format {info.file_format.value}; it must be "
            "array_record, parquet or tfrecord"
        )
    files = info.splits[split]
    return TFRecords([str(path) for path in files.filepaths], files.shard_lengths)


class _Examples:
    """The examples of one split: encoded images and labels."""

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
        from google.protobuf import message
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            # protobuf creates the class when the module is imported.
            parse = tf_example_pb2.Example.FromString  # pyright: ignore
            record = parse(bytes(self._records[index]))
            features = record.features.feature
            image = features[self._image].bytes_list.value[0]
            return image, features[self._label].int64_list.value[0]
        # array_record raises RuntimeError for a damaged file.
        except (
            message.DecodeError,
            EOFError,
            IndexError,
            OSError,
            RuntimeError,
        ) as error:
            raise DecodeError(self.name(index), f"damaged record: {error}") from error

    def label(self, index: int) -> int:
        return self.example(index)[1]

    def labels(self) -> np.ndarray:
        with ThreadPoolExecutor() as pool:
            return np.asarray(list(pool.map(self.label, range(len(self)))), np.int32)


def _open(examples: _Examples, image: Any, label: Any) -> Source:
    classes = tuple(label.names)
    height, width, channels = image.shape

    def example(index: int, target_side: TargetSide) -> tuple[Pixels, int]:
        encoded, label = examples.example(index)
        if not 0 <= label < len(classes):
            raise SourceError(
                f"{examples.spec}: label {label} at {examples.name(index)} is out of "
                f"range: the classes are 0 to {len(classes) - 1}"
            )
        return decode_image(encoded, examples.name(index), target_side), label

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
