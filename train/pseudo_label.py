"""`python -m train pseudo-label`: a run's model labels a set of images, into a file.

The teacher is in evaluation mode and sees each image as in evaluation: no dropout, no
drop path, no augmentation. `train.pseudo_labels` says what the file is.
"""

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.config import Devices, config_from_json
from train.data import BadImages, Source, eval_batches, prefetch_to_device
from train.data.sources import Split
from train.errors import UserError
from train.images import open_unlabelled, reading
from train.inference import load_record, load_run
from train.parallel import Placement
from train.pseudo_labels import (
    FORMAT,
    PseudoLabels,
    PseudoLabelsWriter,
    images_digest,
    read_pseudo_labels,
)
from train.record import changes, machine, pixel_inputs, versions
from train.step import make_predict_step

__all__ = ["label_images", "open_images"]

_SHARD = 8192  # Images between two writes, about.
_EVERY = 10.0  # Seconds between two lines of progress.


def open_images(
    run: Path, data: str, split: Split = "train"
) -> tuple[Source, dict[str, Any]]:
    """Images for a run to label.

    Args:
      run: its folder.
      data: a source, or `rest`: the training images that the run did not use.
      split: which of the images.

    Returns:
      The images, and how they were opened, for the header.

    Raises:
      UserError: if the folder holds no run.
      SourceError: if there are no such images.
    """
    config = config_from_json(load_record(run)["config"])
    opened = {
        "part": data if data == "rest" else "all",
        "split": split,
        "seed": config.seed,
        "selection": dataclasses.asdict(config.selection),
    }
    return open_unlabelled(config, data, split, keep=False), opened


def label_images(
    run: Path,
    source: Source,
    out: Path,
    *,
    batch_size: int | None = None,
    ema: bool = False,
    threads: int | None = None,
    opened: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> PseudoLabels:
    """Labels images by a run's last checkpoint, over all devices, or goes on with it.

    A file that was left unfinished, in whatever way, ends with the same bytes, on the
    same machine and versions; one that is finished is opened. The images' labels are
    not looked at, and what is in memory does not grow with their number.

    Args:
      run: the run's folder.
      source: the images.
      out: the file; its folder is made if need be.
      batch_size: images a step; None is the run's.
      ema: whether to take the running means of the weights.
      threads: that read images; None for as many as the run's.
      opened: how the source was opened, for the header.
      say: called with lines of progress.

    Returns:
      The file, opened.

    Raises:
      UserError: if the folder holds no run, or the file something else.
      BadImagesError: if too many images cannot be read, by the run's `max_bad_share`.
      StorageError: if the disk is full; what is labelled stays.
    """
    record, model, variables, step = load_run(run, ema=ema)
    header = {
        "format": FORMAT,
        "run": str(run.resolve()),
        "recipe": record["recipe"],
        "model": record["model"]["name"],
        "step": step,
        "ema": ema,
        "teacher": _digest(variables),
        "data": source.spec,
        **(opened or {}),
        "images": len(source),
        "digest": images_digest(source),
        "class_names": record["class_names"],
        "versions": versions(),
        "machine": machine(Devices()),
    }
    with PseudoLabelsWriter(out, header) as writer:
        if writer.labelled < len(source):
            for change in changes(writer.header, header):
                say(change)
        config = config_from_json(record["config"])
        bad = BadImages(
            len(source),
            max_share=config.input.max_bad_share,
            say=say,
            known=dict(writer.header["unreadable"].values()),
        )
        placement = Placement()
        rows = placement.round_up(batch_size or config.input.batch_size)
        options = reading(config)
        batches = eval_batches(
            source,
            batch_size=rows,
            image_size=record["input"]["image_size"],
            channels=record["input"]["channels"],
            start=writer.labelled,
            bad_images=bad,
            **{**options, "threads": threads or options["threads"]},
        )
        predict = jax.jit(make_predict_step(model, pixel_inputs(record)))
        teacher = partial(predict, jax.device_put(variables, placement.whole))
        progress = _Progress(writer.labelled, len(source), say)
        with contextlib.closing(prefetch_to_device(batches, placement.split)) as ready:
            for log_probs, index, mask in _shards(_labelled(teacher, ready)):
                there = index < len(source)
                read = mask[there] > 0
                probabilities = np.exp(log_probs[there], dtype=np.float32)
                if not np.isfinite(probabilities[read]).all():
                    raise UserError(f"{run} is no teacher: its answers are not finite.")
                names = {i: source.name(i) for i in index[there][~read].tolist()}
                reasons = bad.found
                writer.append(
                    probabilities, {i: (n, reasons[n]) for i, n in names.items()}
                )
                progress(writer.labelled)
    return read_pseudo_labels(out)


def _digest(variables: Any) -> str:
    """What tells a teacher from others: its numbers."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def _labelled(
    teacher: Callable[[jax.Array], jax.Array], batches: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[np.ndarray, ...]]:
    """Log probabilities `[N, K]`, index `[N]` and mask `[N]` of each batch."""
    last = None
    for batch in batches:
        # The device works on this batch while the last one is fetched.
        now = teacher(batch["image"]), batch["index"], batch["mask"]
        if last is not None:
            yield jax.device_get(last)
        last = now
    if last is not None:
        yield jax.device_get(last)


def _shards(
    batches: Iterable[tuple[np.ndarray, ...]],
) -> Iterator[tuple[np.ndarray, ...]]:
    """The same, of several batches at a time."""
    gathered, count = [], 0
    for batch in batches:
        gathered.append(batch)
        count += len(batch[0])
        if count >= _SHARD:
            yield _joined(gathered)
            gathered, count = [], 0
    if gathered:
        yield _joined(gathered)


def _joined(batches: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


class _Progress:
    """Says now and then how far it is."""

    def __init__(self, start: int, images: int, say: Callable[[str], None]) -> None:
        self._start = start
        self._images = images
        self._say = say
        self._began = self._said = time.monotonic()
        if start:
            say(f"{start:,} of {images:,} images are labelled already.")

    def __call__(self, labelled: int) -> None:
        now = time.monotonic()
        if now >= self._said + _EVERY and labelled < self._images:
            rate = (labelled - self._start) / (now - self._began)
            left = (self._images - labelled) / rate / 60
            self._say(
                f"{labelled:,} of {self._images:,} images are labelled, {rate:,.0f} a "
                f"second; {left:.1f} min left."
            )
            self._said = now
