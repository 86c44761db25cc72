"""The readers that are tried: what each is given, calls, and may raise."""

import dataclasses
import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.fuzzing import inputs
from benchmarks.fuzzing.inputs import Files
from cnn_flax.registry import UnknownModelError
from cnn_flax.weights import CheckpointError, WeightsError, read_checkpoint
from cnn_flax.weights.class_names import class_names
from cnn_flax.weights.identify import identify_weights
from cnn_flax.weights.native import read_metadata
from cnn_flax.weights.preprocessing import ImageError, read_image
from cnn_flax.weights.runs import read_record
from train.config_file import config_from_json, load_record
from train.data.arrays import idx, npz
from train.data.decode import DecodeError, decode_image, header_shape
from train.data.label_shards import (
    dense_probabilities,
    read_folder,
    read_label_header,
    read_label_shard,
)
from train.data.multi_label import csv_file
from train.data.pseudo_label_file import read_pseudo_labels, select_pseudo_labels
from train.data.shard_readers import open_shard
from train.data.tfds import _Examples
from train.data.tfrecord import TFRecords
from train.errors import UserError
from train.noisy_student.run import _is_same, _labelling_times
from train.run.metrics import read_metrics
from train.run.output_cache import cached_rows
from train.run.run_folder import read_result, whole_result

__all__ = ["READERS", "Reader", "make_input"]

Expected = type[BaseException] | tuple[type[BaseException], ...]


@dataclasses.dataclass(frozen=True)
class Reader:
    """One reader of files.

    Attributes:
      make: makes one input from a random number generator.
      read: reads what is in a folder, as far as programs do.
      raises: what it documents.
      weight: its share of the inputs, relative to the others'.
    """

    make: Callable[[random.Random], Files]
    read: Callable[[Path], object]
    raises: Expected
    weight: float = 1.0


def make_input(reader: str, seed: int, number: int) -> Files:
    """The files of an input: always the same bytes, with the same versions."""
    rng = random.Random(f"{reader} {seed} {number}")
    return READERS[reader].make(rng)


def both(*reads: Callable[[Path], object]) -> Callable[[Path], object]:
    """Calls each, whatever the others raise; raises the last error.

    The first error that none documents is raised at once.
    """

    def read(folder: Path) -> None:
        last = None
        for one in reads:
            try:
                one(folder)
            except _KNOWN as error:
                last = error
        if last is not None:
            raise last

    return read


_KNOWN = (WeightsError, UserError, ImageError, UnknownModelError)


def _weights(folder: Path) -> None:
    for array in read_checkpoint(folder / "weights").values():
        if array.size:  # All of it may be a small storage, repeated without end.
            array[(-1,) * array.ndim].item()


def _safetensors(folder: Path) -> None:
    read_metadata(folder / "weights")
    read_checkpoint(folder / "weights")


def _source(opener: Callable[[str], dict[str, Callable]], path: Path) -> None:
    for open_split in opener(str(path)).values():
        source = open_split()
        source.read(len(source) - 1)
        source.strata().max()


def _image(folder: Path) -> None:
    path = folder / "image"
    decode_image(path.read_bytes(), "image", len(path.name))


def _config(folder: Path) -> None:
    record = load_record(folder, whole=True)
    config_from_json(record["config"])


def _identified(folder: Path) -> None:
    read_record(folder)
    weights = identify_weights(None, folder)
    class_names(weights, 2)


def _published(folder: Path) -> None:
    weights = identify_weights("resnet18", folder / "model.safetensors")
    class_names(weights, 2)


def _pseudo_labels(folder: Path) -> None:
    labels = read_pseudo_labels(folder / "labels.npy")
    select_pseudo_labels(labels.probabilities, min_confidence=0.5)


def _label_shard(folder: Path) -> None:
    read_label_header(folder / "labels.npz")
    shard = read_label_shard(folder / "labels.npz")
    dense_probabilities(shard.classes, shard.log_probs, shard.header["classes"])


def _shard(name: str, folder: Path) -> None:
    shard = open_shard(folder / name)
    for index in range(min(4, len(shard.names))):
        decode_image(shard.read(index), shard.names[index], 8)


def _student(folder: Path) -> None:
    _is_same(folder, inputs.student_record())


@functools.cache
def _checkpointed(run: Path) -> Any:
    """Writes a run with one checkpoint; returns the shapes of its state."""
    import jax.numpy as jnp

    from train.learn.parallel import Placement
    from train.learn.step import TrainState
    from train.run.checkpoint import Checkpoints

    numbers = jnp.zeros(3)
    state = TrainState(
        step=jnp.int32(7), params={"a": numbers}, batch_stats={}, opt_state=numbers
    )
    with Checkpoints(run) as checkpoints:
        checkpoints.save(7, state, {"step": 7})
    placement = Placement()
    return placement.shapes(state, placement.replicated)


def _checkpoint(folder: Path) -> None:
    from train.run.checkpoint import Checkpoints

    run = folder.parent / "run"
    shapes = _checkpointed(run)
    saved = run / "checkpoints" / "7"
    for name, place in (("metadata", saved / "meta"), ("_CHECKPOINT_METADATA", saved)):
        (place / name).write_bytes((folder / name).read_bytes())
    with Checkpoints(run) as checkpoints:
        checkpoints.restore(shapes)


def _tfrecord(folder: Path) -> None:
    records = TFRecords([str(folder / "records")], [2])
    examples = _Examples("tfds:x", "train", records, "image", "label")
    both(
        *(
            lambda _, k=k: decode_image(examples.example(k)[0], "image", 8)
            for k in range(2)
        )
    )(folder)


_ROOM = np.zeros((4, 2), np.float32)


def _json(name: str, read: Callable[[Path], object], raises: Expected) -> Reader:
    return Reader(functools.partial(inputs.json_file, name=name), read, raises, 2)


READERS: dict[str, Reader] = {
    "safetensors": Reader(inputs.safetensors, _safetensors, CheckpointError, 6),
    "index": Reader(inputs.index, _weights, CheckpointError, 2),
    "npz_weights": Reader(inputs.npz_weights, _weights, CheckpointError, 4),
    "torch_zip": Reader(inputs.torch_zip, _weights, CheckpointError, 6),
    "torch_legacy": Reader(inputs.torch_legacy, _weights, CheckpointError, 6),
    "idx": Reader(inputs.idx_data, functools.partial(_source, idx), UserError, 2),
    "csv_data": Reader(
        inputs.csv_data,
        lambda folder: _source(csv_file, folder / "data.csv"),
        (UserError, DecodeError),
        2,
    ),
    "npz_data": Reader(
        inputs.npz_data, lambda folder: _source(npz, folder / "data.npz"), UserError, 2
    ),
    **{
        f"image_{form.lower()}": Reader(
            functools.partial(inputs.image_file, form=form),
            both(
                _image,
                lambda folder: header_shape(folder / "image"),
                lambda folder: read_image(folder / "image"),
            ),
            (DecodeError, ImageError),
            0.3 if form in ("AVIF", "JPEG2000") else 1.5,
        )
        for form in (
            *("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"),
            "OTHER",
        )
    },
    "config": Reader(inputs.run_config, both(_config, _identified), _KNOWN, 3),
    "result": _json("result.json", both(read_result, whole_result), UserError),
    "metrics": Reader(inputs.metrics, read_metrics, UserError, 2),
    "noisy_student": Reader(inputs.noisy_student, _student, UserError, 2),
    "labelling_times": _json("labelling_times.json", _labelling_times, UserError),
    "pseudo_labels": Reader(inputs.pseudo_labels, _pseudo_labels, UserError, 3),
    "label_folder": _json("labels.json", read_folder, UserError),
    "label_shard": Reader(inputs.label_shard, _label_shard, UserError, 3),
    "output_cache": Reader(
        inputs.output_cache,
        lambda folder: cached_rows(folder / "rows.npy", _ROOM, []),
        UserError,
        1,
    ),
    "published": Reader(inputs.published, _published, WeightsError, 1.5),
    "tar": Reader(inputs.tar, functools.partial(_shard, "shard.tar"), UserError, 1.5),
    "parquet": Reader(
        inputs.parquet, functools.partial(_shard, "shard.parquet"), UserError, 0.5
    ),
    "array_record": Reader(
        inputs.array_record,
        functools.partial(_shard, "shard.array_record"),
        UserError,
        0.3,
    ),
    "checkpoint": Reader(inputs.checkpoint, _checkpoint, WeightsError, 0.05),
    "shard_list": Reader(
        inputs.shard_list, functools.partial(_shard, "shard.txt"), UserError, 0.5
    ),
    "tfrecord": Reader(inputs.tfrecord, _tfrecord, UserError, 1.5),
}

Image.init()
