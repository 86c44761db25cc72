"""Batches of images on the host, for training and evaluation.

A stream of batches is a pure function of the seed and the position: a step number is
enough to resume it, and the number of threads or processes does not change it.
"""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import grain
import numpy as np

from cnn_flax.weights.errors import reason_of
from train.data.bad_images import BadImages
from train.data.decode import (
    CropMode,
    DecodeError,
    Interpolation,
    Pixels,
    TargetSide,
    fit,
    to_channels,
)
from train.data.prefetch import prefetch_to_device
from train.data.random_windows import RandomWindows
from train.data.source import Source, SourceError
from train.errors import UserError

__all__ = ["eval_batches", "prefetch_to_device", "steps_per_epoch", "train_batches"]

Batch = dict[str, np.ndarray]
# From a target side and an index to the image, its label and its index; None leaves the
# row empty.
_ReadExample = Callable[[TargetSide, int], tuple[Pixels, int, int] | None]

# Enough for the end of an epoch and the start of the next in a few streams at once.
_CACHED_PERMUTATIONS = 8
_BATCHES_AHEAD = 2
# Images that a thread reads at a time: a larger chunk has less overhead, a smaller one
# is ready sooner.
_CHUNK = 8
_LAST_STEP = 2**40


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """Number of full batches in the set: `n // batch_size`.

    Raises:
      SourceError: if there is none.
    """
    if not 0 < batch_size <= len(source):
        raise SourceError(
            f"{source.spec}: batch size {batch_size} must be 1 to {len(source)}, the "
            "number of images"
        )
    return len(source) // batch_size


def train_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    channels: int,
    seed: int,
    start_step: int = 0,
    crop_pct: float = 1.0,
    interpolation: Interpolation = "bilinear",
    crop_mode: CropMode = "center",
    window_scale: tuple[float, float] | None = None,
    threads: int | None = None,
    bad_images: BadImages | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch]:
    """The endless stream of training batches, from a given step on.

    Each epoch is a new permutation of the set, or the source's own order, drawn from
    the seed and the epoch's number, and has `n // batch_size` steps: images that do not
    fill a batch are left out of that epoch. An unreadable image is replaced, label
    included, by the next readable one in the set's order: batches stay full, and the
    stream stays a function of the position.

    Args:
      source: the images.
      batch_size: N, over all processes.
      image_size: height and width of the batches, in pixels.
      channels: C: 1, 3, or the number of channels of the images.
      seed: seed of the permutations, at least 0.
      start_step: number of the first batch: k skips the first k batches.
      crop_pct: see `decode.fit`.
      interpolation: see `decode.fit`.
      crop_mode: see `decode.fit`.
      window_scale: range of the area of random windows cropped from the images, see
        `RandomWindows`; None crops the centre, see `decode.fit`.
      threads: number of threads that read images; None for one per core.
      bad_images: records the unreadable images; None allows 1 % of the set.
      process_index: number of this process.
      process_count: number of processes; each gets its rows of every batch.

    Returns:
      Batches of `image` uint8 `[N, image_size, image_size, C]`, `label` int32 `[N]` and
      `index` int32 `[N]`, the position in the stream (`step * batch_size + row`, modulo
      2 ** 31), which determines the image's random augmentation; and the source's
      columns. N is this process's share.

    Raises:
      SourceError: if the set is smaller than a batch.
      BadImagesError: if too many images are unreadable.
    """
    epoch_size = steps_per_epoch(source, batch_size) * batch_size
    bad = BadImages(len(source)) if bad_images is None else bad_images
    read_example = partial(_next_readable, source, bad)
    windows = None if window_scale is None else RandomWindows(seed, window_scale)
    resize = _Resize(image_size, channels, crop_pct, interpolation, crop_mode, windows)
    resize.check(source)

    def load(positions: np.ndarray) -> Batch:
        epoch = int(positions[0]) // epoch_size
        if source.order is None:
            order = _permutation(len(source), seed, epoch)
        else:
            order = source.order(seed, epoch)
        indices = order[positions % epoch_size]
        batch, _ = _read(source, indices, positions, read_example, resize)
        return {**batch, "index": (positions % 2**31).astype(np.int32)}

    rows = _rows(batch_size, process_index, process_count)
    steps = range(start_step, _LAST_STEP)
    whole_batches = resize.is_identity(source)
    return _stream(load, rows, batch_size, steps, whole_batches, threads)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    channels: int,
    start: int = 0,
    crop_pct: float = 1.0,
    interpolation: Interpolation = "bilinear",
    crop_mode: CropMode = "center",
    threads: int | None = None,
    bad_images: BadImages | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch]:
    """Every image once, in the set's order.

    Rows that pad the last batch, and unreadable images, are black and have mask 0: they
    must not count.

    Args:
      source: the images.
      batch_size: N, over all processes.
      image_size: height and width of the batches, in pixels.
      channels: C: 1, 3, or the number of channels of the images.
      start: index of the first image.
      crop_pct: see `decode.fit`.
      interpolation: see `decode.fit`.
      crop_mode: see `decode.fit`.
      threads: number of threads that read images; None for one per core.
      bad_images: records the unreadable images; None allows 1 % of the set.
      process_index: number of this process.
      process_count: number of processes; each gets its rows of every batch.

    Returns:
      `ceil((n - start) / batch_size)` batches of `image` uint8 `[N, image_size,
      image_size, C]`, `label` int32 `[N]`, `index` int32 `[N]`, the image's index in
      the set (n or more in padding rows), and `mask` float32 `[N]`, 1 where the row
      counts, else 0. N is this process's share.

    Raises:
      BadImagesError: if too many images are unreadable.
    """
    if batch_size < 1:
        raise SourceError(f"{source.spec}: batch size {batch_size} must be at least 1")
    bad = BadImages(len(source)) if bad_images is None else bad_images
    read_example = partial(_if_readable, source, bad)
    resize = _Resize(image_size, channels, crop_pct, interpolation, crop_mode)
    resize.check(source)

    def load(positions: np.ndarray) -> Batch:
        positions = start + positions
        batch, filled = _read(source, positions, positions, read_example, resize)
        mask, index = filled.astype(np.float32), positions.astype(np.int32)
        return {**batch, "index": index, "mask": mask}

    rows = _rows(batch_size, process_index, process_count)
    steps = range(-(-(len(source) - start) // batch_size))
    whole_batches = resize.is_identity(source)
    return _stream(load, rows, batch_size, steps, whole_batches, threads)


def _rows(batch_size: int, process_index: int, process_count: int) -> range:
    """The rows of each batch that a process reads."""
    if batch_size % process_count:
        raise SourceError(
            f"batch size {batch_size} is not a multiple of {process_count}, the number "
            "of processes"
        )
    share = batch_size // process_count
    return range(process_index * share, (process_index + 1) * share)


@lru_cache(_CACHED_PERMUTATIONS)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class _Resize:
    """Crops and resizes an image, and converts its channels, for a batch."""

    size: int
    channels: int
    crop_pct: float
    interpolation: Interpolation
    crop_mode: CropMode
    windows: RandomWindows | None = None

    def check(self, source: Source) -> None:
        """Raises `UserError` if the set's channels cannot be converted to these."""
        to_channels(np.zeros((0, 0, source.channels), np.uint8), self.channels)

    def is_identity(self, source: Source) -> bool:
        """Whether the images are in memory and already have this size."""
        size = (self.size, self.size)
        return (
            source.images is not None
            and source.native_size == size
            and self.crop_pct == 1
            and self.windows is None
        )

    def target_side(self, position: int) -> TargetSide:
        """What to pass to `decode.decode_image`."""
        if self.windows is None:
            return int(self.size / self.crop_pct)
        return partial(self.windows.target_side, position, self.size)

    def __call__(self, image: Pixels, position: int) -> np.ndarray:
        if self.windows is not None:
            method = self.interpolation
            resized = self.windows.crop(image, position, self.size, method)
        else:
            resized = fit(
                image,
                self.size,
                crop_pct=self.crop_pct,
                method=self.interpolation,
                mode=self.crop_mode,
            )
        return to_channels(resized, self.channels)


def _read(
    source: Source,
    indices: np.ndarray,
    positions: np.ndarray,
    read_example: _ReadExample,
    resize: _Resize,
) -> tuple[Batch, np.ndarray]:
    """Reads the images, labels and columns at k indices.

    Args:
      source: the images.
      indices: int `[k]`; rows whose index is n or more stay empty.
      positions: the rows' positions in the stream, int `[k]`.
      read_example: reads an image; rows for which it returns None stay empty.
      resize: crops and resizes an image.

    Returns:
      The batch, and which rows are filled, bool `[k]`.
    """
    shape = (len(indices), resize.size, resize.size, resize.channels)
    images = np.zeros(shape, np.uint8)
    labels = np.zeros(len(indices), np.int32)
    filled = indices < len(source)
    indices = np.where(filled, indices, 0)
    if source.images is not None and resize.is_identity(source):
        images[filled] = to_channels(source.images[indices[filled]], resize.channels)
        if "label" not in source.columns:
            labels[filled] = source.labels[indices[filled]]
    else:
        for row in np.flatnonzero(filled):
            position, index = int(positions[row]), int(indices[row])
            with _naming(lambda index=index: source.name(index)):
                example = read_example(resize.target_side(position), index)
                filled[row] = example is not None
                if example is not None:
                    image, labels[row], indices[row] = example
                    images[row] = resize(image, position)
    with _naming(lambda: source.spec):
        columns = {name: rows[indices] for name, rows in source.columns.items()}
    return {"image": images, "label": labels, **columns}, filled


@contextlib.contextmanager
def _naming(name: Callable[[], str]) -> Iterator[None]:
    """Turns any error of a thread that reads images into one that says where."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise SourceError(
            f"{name()} could not be read because of an error in the program or the "
            f"system: {reason}. --debug shows where."
        ) from error


def _next_readable(
    source: Source, bad: BadImages, target_side: TargetSide, index: int
) -> tuple[Pixels, int, int]:
    for i in range(index, index + len(source)):
        try:
            return *source.example(i % len(source), target_side), i % len(source)
        except DecodeError as error:
            bad.add(error)
    raise SourceError(f"{source.spec}: none of the {len(source)} images can be read")


def _if_readable(
    source: Source, bad: BadImages, target_side: TargetSide, index: int
) -> tuple[Pixels, int, int] | None:
    try:
        return *source.example(index, target_side), index
    except DecodeError as error:
        bad.add(error)
        return None


def _stream(
    load: Callable[[np.ndarray], Batch],
    rows: range,
    batch_size: int,
    steps: range,
    whole_batches: bool,
    threads: int | None,
) -> Generator[Batch]:
    """Yields the given rows of each step's batch.

    Args:
      load: loads rows by their positions in the stream.
      rows: the rows of each batch.
      batch_size: number of rows of a batch, over all processes.
      steps: the steps to load batches for.
      whole_batches: whether to load each batch in one piece when it is asked for;
        otherwise threads load a few rows at a time, ahead of their use.
      threads: number of threads; None for one per core.
    """
    if whole_batches:
        chunk, options = len(rows), grain.ReadOptions(0, 0)
    else:
        chunk, threads = _CHUNK, threads or os.cpu_count() or 1
        ahead = max(threads, _BATCHES_AHEAD * -(-len(rows) // chunk))
        options = grain.ReadOptions(threads, ahead)
    chunks = range(0, len(rows), chunk)

    def element(k: int) -> Batch:
        step, part = divmod(k, len(chunks))
        part_rows = rows[chunks[part] : chunks[part] + chunk]
        return load(step * batch_size + np.asarray(part_rows))

    span = (steps.start * len(chunks), steps.stop * len(chunks))
    stream = grain.MapDataset.range(*span).map(element).to_iter_dataset(options)
    return _closing(stream.batch(len(chunks), batch_fn=_concatenate))


def _concatenate(chunks: Sequence[Batch]) -> Batch:
    if len(chunks) == 1:
        return chunks[0]
    return {key: np.concatenate([chunk[key] for chunk in chunks]) for key in chunks[0]}


def _closing(stream: grain.IterDataset) -> Generator[Batch]:
    """Iterates over a stream, and ends its threads when the generator is closed."""
    iterator = iter(stream)
    try:
        yield from iterator
    finally:
        iterator.close()
