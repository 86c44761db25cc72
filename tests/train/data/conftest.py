"""One small set of grey images, written in each format that can be read."""

import gzip
import io
import json
import os
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

CLASSES = ("ant", "bee", "cow")
PER_CLASS = {"train": 5, "test": 2}


def make_arrays(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Distinct images uint8 `[n, 6, 6]`, and sorted labels `[n]`."""
    labels = np.repeat(np.arange(len(CLASSES)), PER_CLASS[split])
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (len(labels), 6, 6), np.uint8), labels


class Toy(NamedTuple):
    """A set to write.

    Attributes:
      class_names: names of the classes, sorted.
      splits: grey images uint8 `[n, h, w]` and sorted labels, by split.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]]


TOY = Toy(CLASSES, {split: make_arrays(split) for split in PER_CLASS})


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def idx_bytes(values: np.ndarray) -> bytes:
    header = struct.pack(">HBB", 0, 8, values.ndim)
    return header + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_idx(root: Path, toy: Toy = TOY, *, compress: bool = True) -> str:
    root.mkdir(parents=True)
    for split, part in (("train", "train"), ("test", "t10k")):
        images, labels = toy.splits[split]
        for name, values in (
            (f"{part}-images-idx3-ubyte", images),
            (f"{part}-labels-idx1-ubyte", labels.astype(np.uint8)),
        ):
            data = idx_bytes(values)
            if compress:
                (root / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (root / name).write_bytes(data)
    (root / "classes.txt").write_text("\n".join(toy.class_names) + "\n")
    return f"idx:{root}"


def write_folder(root: Path, toy: Toy = TOY) -> str:
    for split, arrays in toy.splits.items():
        for i, (image, label) in enumerate(zip(*arrays, strict=True)):
            file = root / split / toy.class_names[label] / f"{i:05}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(image))
    return f"folder:{root}"


def write_npz(root: Path, toy: Toy = TOY) -> str:
    root.mkdir(parents=True)
    arrays: dict[str, Any] = {"class_names": np.asarray(toy.class_names)}
    for split in toy.splits:
        arrays[f"x_{split}"], arrays[f"y_{split}"] = toy.splits[split]
    np.savez(root / "set.npz", **arrays)
    return f"npz:{root / 'set.npz'}"


def write_tfds(root: Path, toy: Toy = TOY, *, file_format: str = "array_record") -> str:
    """Writes a set with tensorflow-datasets' writer, for array_record only."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    folder = root / "toy" / "1.0.0"
    folder.mkdir(parents=True)
    identity = DatasetIdentity(
        name="toy",
        version=tfds.core.Version("1.0.0"),
        data_dir=str(folder),
        module_name="toy",
    )
    height, width = toy.splits["train"][0].shape[1:]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(height, width, 1)),
            "label": tfds.features.ClassLabel(names=list(toy.class_names)),
        }
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=features, supervised_keys=("image", "label")
    )
    # Several shards per split, whether the set is small or large.
    per_shard = max(4, len(toy.splits["train"][1]) // 4)
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=per_shard, file_format="array_record"
    )
    writer.initialize_splits(list(toy.splits))
    for split, arrays in toy.splits.items():
        examples = [
            {"image": io.BytesIO(png(image)), "label": int(label)}
            for image, label in zip(*arrays, strict=True)
        ]
        writer.add_examples({split: examples})
    writer.close_all()
    if file_format != "array_record":
        _rewrite(folder, file_format)
    return f"tfds:toy@{root}"


def _rewrite(folder: Path, file_format: str) -> None:
    """Converts an array_record set to another format, record by record."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    for file in sorted(folder.glob("*.array_record-*")):
        source = ArrayRecordDataSource(str(file))
        records = [source[i] for i in range(len(source))]
        target = file.with_name(file.name.replace("array_record", file_format))
        _WRITERS[file_format](target, records)
        file.unlink()
    info = folder / "dataset_info.json"
    fields = json.loads(info.read_text())
    info.write_text(json.dumps(fields | {"fileFormat": file_format}))


def write_tfrecord(file: Path, records: list[bytes]) -> None:
    frames = (
        struct.pack("<Q", len(record)) + b"\0" * 4 + record + b"\0" * 4
        for record in records
    )
    file.write_bytes(b"".join(frames))


def _write_parquet(file: Path, records: list[bytes]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"data": pyarrow.array(records)}), file)


_WRITERS: dict[str, Callable[[Path, list[bytes]], None]] = {
    "tfrecord": write_tfrecord,
    "parquet": _write_parquet,
}
WRITERS: dict[str, Callable[..., str]] = {
    "idx": write_idx,
    "idx, not gzipped": partial(write_idx, compress=False),
    "folder": write_folder,
    "npz": write_npz,
    "tfds array_record": write_tfds,
    "tfds parquet": partial(write_tfds, file_format="parquet"),
    "tfds tfrecord": partial(write_tfds, file_format="tfrecord"),
}


@pytest.fixture(params=WRITERS)
def any_spec(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The small set in each format, as a spec for `open_source`."""
    return WRITERS[request.param](tmp_path / "set")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Writes the small set in one format, by its name in `WRITERS`."""
    return lambda form: WRITERS[form](tmp_path / "set")


@pytest.fixture
def write_set(tmp_path: Path) -> Callable[..., str]:
    """Writes a set with two splits in one format, by its name in `WRITERS`."""

    def write(form: str, class_names, train, test) -> str:
        toy = Toy(tuple(class_names), {"train": train, "test": test})
        return WRITERS[form](tmp_path / form.replace(" ", "_"), toy)

    return write


@pytest.fixture
def arrays() -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """Returns the images and labels of a split of the small set."""
    return make_arrays


@pytest.fixture
def frame() -> Callable[[Path, list[bytes]], None]:
    """Writes records to a TFRecord file."""
    return write_tfrecord


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """A hundred colour images of differing size, four classes, without split folders.

    Image i has the value i in every pixel.
    """
    root = tmp_path / "photos"
    for i in range(100):
        file = root / f"class{i % 4}" / f"{i:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(np.full((10 + i % 3, 12, 3), i, np.uint8)))
    return root


@pytest.fixture
def break_file() -> Callable[[os.PathLike[str] | str], None]:
    """Truncates a file, so that it cannot be read as an image."""

    def truncate(path: os.PathLike[str] | str) -> None:
        data = Path(path).read_bytes()
        Path(path).write_bytes(data[: len(data) // 2])

    return truncate
