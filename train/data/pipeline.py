"""From a set of images to the batches of a run, on the host.

A stream is a pure function of the seed and the position in it: a step number alone
restarts it, and neither the number of threads nor that of processes changes it.
"""

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import grain
import numpy as np

from train.data.bad_images import BadImages
from train.data.decode import (
    DecodeError,
    Interpolation,
    Least,
    Pixels,
    fit,
    to_channels,
)
from train.data.prefetch import prefetch_to_device
from train.data.source import Source, SourceError
from train.data.window import Windows

__all__ = ["eval_batches", "prefetch_to_device", "steps_per_epoch", "train_batches"]

Batch = dict[str, np.ndarray]
# Image, label and index in the set, at a size and an index; None where the row is to
# stay empty.
_Example = Callable[[Least, int], tuple[Pixels, int, int] | None]

# Enough for an epoch's end and the next one's start in a few streams at once.
_EPOCHS_KEPT = 8
_BATCHES_AHEAD = 2
# Images that a thread reads at a time: more cost less, fewer come sooner.
_CHUNK = 8
_LAST_STEP = 2**40


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """Number of full batches in the set: `n // batch_size`.

    Raises:
      SourceError: there is not one.
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
    window_scale: tuple[float, float] | None = None,
    threads: int | None = None,
    bad_images: BadImages | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch]:
    """The endless stream of training batches, from a step on.

    Each epoch is a new permutation of the set, drawn from the seed and the epoch's
    number, and has `n // batch_size` steps: what does not fill a batch is left out of
    that epoch. An image that cannot be read is replaced by the next one in the set's
    order that can be, label and all: batches stay full, and the stream stays a function
    of the position.

    Args:
      source: the images.
      batch_size: N, over all processes.
      image_size: height and width of the batches, in pixels.
      channels: C: 1 or 3, or as many as the images have.
      seed: of the permutations, not negative.
      start_step: number of the first batch: k gives what is left after k batches.
      crop_pct: see `decode.fit`.
      interpolation: see `decode.fit`.
      window_scale: range of the area of the windows that are cut from the images at
        random, see `window.Windows`; None takes the centre, see `decode.fit`.
      threads: number of threads that read images; None for one a core.
      bad_images: notes the images that cannot be read; None allows 1 % of the set.
      process_index: number of this process.
      process_count: number of processes; each gets its rows of every batch.

    Returns:
      Batches of `image` uint8 `[N, image_size, image_size, C]`, `label` int32 `[N]` and
      `index` int32 `[N]`, the place in the stream (`step * batch_size + row`, modulo
      2 ** 31), from which the image's random draws follow; and the source's columns.
      N is this process's share.

    Raises:
      SourceError: the set is smaller than a batch.
      BadImagesError: too many images cannot be read.
    """
    epoch_size = steps_per_epoch(source, batch_size) * batch_size
    bad = BadImages(len(source)) if bad_images is None else bad_images
    example = partial(_next_readable, source, bad)
    windows = None if window_scale is None else Windows(seed, window_scale)
    look = _Look(image_size, channels, crop_pct, interpolation, windows)
    look.check(source)

    def load(positions: np.ndarray) -> Batch:
        epoch = int(positions[0]) // epoch_size
        order = _permutation(len(source), seed, epoch)
        indices = order[positions % epoch_size]
        batch, _ = _read(source, indices, positions, example, look)
        return {**batch, "index": (positions % 2**31).astype(np.int32)}

    rows = _rows(batch_size, process_index, process_count)
    steps = range(start_step, _LAST_STEP)
    at_once = look.is_as_stored(source)
    return _stream(load, rows, batch_size, steps, at_once, threads)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    channels: int,
    start: int = 0,
    crop_pct: float = 1.0,
    interpolation: Interpolation = "bilinear",
    threads: int | None = None,
    bad_images: BadImages | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch]:
    """Every image once, in the set's order.

    Rows that fill up the last batch, and images that cannot be read, are black and have
    mask 0: neither may count.

    Args:
      source: the images.
      batch_size: N, over all processes.
      image_size: height and width of the batches, in pixels.
      channels: C: 1 or 3, or as many as the images have.
      start: index of the first image.
      crop_pct: see `decode.fit`.
      interpolation: see `decode.fit`.
      threads: number of threads that read images; None for one a core.
      bad_images: notes the images that cannot be read; None allows 1 % of the set.
      process_index: number of this process.
      process_count: number of processes; each gets its rows of every batch.

    Returns:
      `ceil((n - start) / batch_size)` batches of `image` uint8 `[N, image_size,
      image_size, C]`, `label` int32 `[N]`, `index` int32 `[N]`, the image's index in
      the set (not below n in rows that fill up), and `mask` float32 `[N]`, 1 where the
      row counts, else 0. N is this process's share.

    Raises:
      BadImagesError: too many images cannot be read.
    """
    if batch_size < 1:
        raise SourceError(f"{source.spec}: batch size {batch_size} must be at least 1")
    bad = BadImages(len(source)) if bad_images is None else bad_images
    example = partial(_if_readable, source, bad)
    look = _Look(image_size, channels, crop_pct, interpolation)
    look.check(source)

    def load(positions: np.ndarray) -> Batch:
        positions = start + positions
        batch, filled = _read(source, positions, positions, example, look)
        mask, index = filled.astype(np.float32), positions.astype(np.int32)
        return {**batch, "index": index, "mask": mask}

    rows = _rows(batch_size, process_index, process_count)
    steps = range(-(-(len(source) - start) // batch_size))
    at_once = look.is_as_stored(source)
    return _stream(load, rows, batch_size, steps, at_once, threads)


def _rows(batch_size: int, process_index: int, process_count: int) -> range:
    if batch_size % process_count:
        raise SourceError(
            f"batch size {batch_size} is not a multiple of {process_count}, the number "
            "of processes"
        )
    share = batch_size // process_count
    return range(process_index * share, (process_index + 1) * share)


@lru_cache(_EPOCHS_KEPT)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class _Look:
    """What is made of an image on its way into a batch."""

    size: int
    channels: int
    crop_pct: float
    interpolation: Interpolation
    windows: Windows | None = None

    def check(self, source: Source) -> None:
        """Raises `UserError` if the set's images have no way to these channels."""
        to_channels(np.zeros((0, 0, source.channels), np.uint8), self.channels)

    def is_as_stored(self, source: Source) -> bool:
        """Whether the images lie in memory in the size that is wanted."""
        size = (self.size, self.size)
        return (
            source.images is not None
            and source.native_size == size
            and self.crop_pct == 1
            and self.windows is None
        )

    def least(self, position: int) -> Least:
        """See `decode.decode_image`."""
        if self.windows is None:
            return int(self.size / self.crop_pct)
        return partial(self.windows.least, position, self.size)

    def __call__(self, image: Pixels, position: int) -> np.ndarray:
        if self.windows is not None:
            method = self.interpolation
            fitted = self.windows.cut(image, position, self.size, method)
        else:
            fitted = fit(
                image, self.size, crop_pct=self.crop_pct, method=self.interpolation
            )
        return to_channels(fitted, self.channels)


def _read(
    source: Source,
    indices: np.ndarray,
    positions: np.ndarray,
    example: _Example,
    look: _Look,
) -> tuple[Batch, np.ndarray]:
    """Images, labels and what is beside them at k indices, and whether a row is filled.

    `positions` are the rows' places in the stream. Rows whose index is not below n stay
    empty, and those where `example` gives None.
    """
    images = np.zeros((len(indices), look.size, look.size, look.channels), np.uint8)
    labels = np.zeros(len(indices), np.int32)
    filled = indices < len(source)
    indices = np.where(filled, indices, 0)
    if source.images is not None and look.is_as_stored(source):
        images[filled] = to_channels(source.images[indices[filled]], look.channels)
        labels[filled] = source.labels[indices[filled]]
    else:
        for row in np.flatnonzero(filled):
            position = int(positions[row])
            found = example(look.least(position), int(indices[row]))
            filled[row] = found is not None
            if found is not None:
                image, labels[row], indices[row] = found
                images[row] = look(image, position)
    columns = {name: rows[indices] for name, rows in source.columns.items()}
    return {"image": images, "label": labels, **columns}, filled


def _next_readable(
    source: Source, bad: BadImages, least: Least, index: int
) -> tuple[Pixels, int, int]:
    for i in range(index, index + len(source)):
        try:
            return *source.example(i % len(source), least), i % len(source)
        except DecodeError as error:
            bad.add(error)
    raise SourceError(f"{source.spec}: none of the {len(source)} images can be read")


def _if_readable(
    source: Source, bad: BadImages, least: Least, index: int
) -> tuple[Pixels, int, int] | None:
    try:
        return *source.example(index, least), index
    except DecodeError as error:
        bad.add(error)
        return None


def _stream(
    load: Callable[[np.ndarray], Batch],
    rows: range,
    batch_size: int,
    steps: range,
    at_once: bool,
    threads: int | None,
) -> Generator[Batch]:
    """The rows of each step's batch, `load`ed by their positions in the stream.

    Either a few at a time by threads, ahead of their use, or `at_once`.
    """
    if at_once:
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
    """Iterates, and ends the reading threads when the iterator is closed."""
    iterator = iter(stream)
    try:
        yield from iterator
    finally:
        iterator.close()
