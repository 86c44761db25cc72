"""Pseudo-labels: labels images with a trained run.

The teacher runs in evaluation mode, without dropout and drop path, on images that are
not augmented. `train.data.pseudo_label_file` describes the file.
"""

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from train.config import Config, Parallelism
from train.config_file import config_from_json, load_record
from train.data import BadImages, Source, eval_batches, prefetch_to_device
from train.data.open_source import Split, check_outside
from train.data.pseudo_label_file import (
    FORMAT,
    PseudoLabels,
    PseudoLabelsWriter,
    images_digest,
    read_pseudo_labels,
)
from train.data.select import decode_options, open_unlabelled
from train.errors import UserError
from train.learn.parallel import Placement, jit_step
from train.learn.step import make_predict_step
from train.run.load import LoadedRun, load_run
from train.run.record import (
    environment_changes,
    machine,
    pixel_inputs,
    require_one_class,
    run_step_identity,
    versions,
)

__all__ = [
    "batch_options",
    "describe_teacher",
    "label_images",
    "one_behind",
    "open_images_to_label",
]

_SHARD = 8192  # Images per write, approximately.
_EVERY = 10.0  # Seconds between lines of progress.


class _Rows(NamedTuple):
    """The teacher's predictions for a batch of images.

    Attributes:
      log_probs: log probabilities, `[N, K]`.
      index: each image's index in the source, int `[N]`.
      mask: 0 for an unreadable image, and for a row that pads the batch; `[N]`.
    """

    log_probs: np.ndarray
    index: np.ndarray
    mask: np.ndarray


def open_images_to_label(
    run: Path, data: str, split: Split = "train"
) -> tuple[Source, dict[str, Any]]:
    """Opens the images that a run will label.

    Args:
      run: the run's folder.
      data: a data source, or `rest`: the training images that the run left out.
      split: `train`, `val` or `test`.

    Returns:
      The images, and how they were opened, for the header.

    Raises:
      UserError: if the folder holds no run, or no images are left over.
      SourceError: if the images do not exist.
    """
    config = config_from_json(load_record(run, whole=True)["config"])
    opened = {
        "part": data if data == "rest" else "all",
        "split": split,
        "seed": config.seed,
        "selection": dataclasses.asdict(config.selection),
    }
    return open_unlabelled(config, data, split, cache=False), opened


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
    """Labels images with a run's last checkpoint, on all devices.

    An unfinished file is resumed; however it was interrupted, its bytes are those of an
    uninterrupted one, on the same machine and versions. A finished file is only opened.
    The images' own labels are ignored. Memory does not grow with the number of images.

    Args:
      run: the run's folder.
      source: the images.
      out: the file; its folder is created if needed.
      batch_size: images per step; None for the run's.
      ema: whether to use the moving average of the weights.
      threads: number of threads that read images; None for the run's.
      opened: how the source was opened, for the header.
      say: prints lines of progress.

    Returns:
      The file, opened.

    Raises:
      UserError: if the folder holds no run, the file is something else or inside the
        images' folder, or the teacher's logits are not finite.
      BadImagesError: if the share of unreadable images exceeds the run's
        `max_bad_share`.
      StorageError: if the disk is full; the labels so far are saved.
    """
    if not out.exists():
        check_outside(out, source.spec)
    loaded = load_run(run, ema=ema)
    require_one_class(run, loaded.record)
    record, config, model, variables, _ = loaded
    header = {
        "format": FORMAT,
        **describe_teacher(run, loaded, ema),
        "data": source.spec,
        **(opened or {}),
        "images": len(source),
        "digest": images_digest(source),
    }
    with PseudoLabelsWriter(out, header) as writer:
        if writer.labelled < len(source):
            for change in environment_changes(writer.header, header):
                say(change)
        bad = BadImages(
            len(source),
            max_share=config.input.max_bad_share,
            say=say,
            found=dict(writer.header["unreadable"].values()),
        )
        placement = Placement()
        batches = eval_batches(
            source,
            start=writer.labelled,
            bad_images=bad,
            **batch_options(record, config, placement, batch_size, threads),
        )
        predict = jit_step(
            make_predict_step(model, pixel_inputs(record)),
            run_step_identity("prediction", record),
        )
        teacher = partial(predict, jax.device_put(variables, placement.replicated))
        progress = _Progress(writer.labelled, len(source), say)
        with contextlib.closing(
            prefetch_to_device(batches, placement.sharded)
        ) as ready:
            predicted = _counted(one_behind(_label(teacher, ready)), progress)
            for log_probs, index, mask in _shards(predicted):
                is_image = index < len(source)
                readable = mask[is_image] > 0
                probabilities = np.exp(log_probs[is_image], dtype=np.float32)
                if not np.isfinite(probabilities[readable]).all():
                    raise UserError(
                        f"{run} cannot label images: its logits are not finite."
                    )
                unreadable = index[is_image][~readable].tolist()
                names = {i: source.name(i) for i in unreadable}
                reasons = bad.found
                writer.append(
                    probabilities, {i: (n, reasons[n]) for i, n in names.items()}
                )
    return read_pseudo_labels(out)


def describe_teacher(run: Path, teacher: LoadedRun, ema: bool) -> dict[str, Any]:
    """What the header of labels says of their teacher, and of what computes them.

    Args:
      run: the teacher's folder.
      teacher: what it holds.
      ema: whether its variables are the moving average.
    """
    return {
        "run": str(run.resolve()),
        "recipe": teacher.record["recipe"],
        "model": teacher.record["model"]["name"],
        "step": teacher.step,
        "ema": ema,
        "teacher": _digest(teacher.variables),
        "class_names": teacher.record["class_names"],
        "versions": versions(),
        "machine": machine(Parallelism()),
    }


def _digest(variables: Any) -> str:
    """A digest of a teacher's variables."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def batch_options(
    record: Mapping[str, Any],
    config: Config,
    placement: Placement,
    batch_size: int | None,
    threads: int | None,
) -> dict[str, Any]:
    """Options of `train.data.eval_batches` for a run's teacher.

    Args:
      record: the contents of the run's `config.json`.
      config: its config.
      placement: the devices.
      batch_size: images per step; None for the run's.
      threads: number of threads that read images; None for the run's.
    """
    options = decode_options(config)
    return {
        "batch_size": placement.round_up(batch_size or config.input.batch_size),
        "image_size": record["input"]["image_size"],
        "channels": record["input"]["channels"],
        **{**options, "threads": threads or options["threads"]},
    }


def one_behind(results: Iterable[Any]) -> Iterator[Any]:
    """Fetches each result while the device computes the next one."""
    last = None
    for result in results:
        if last is not None:
            yield jax.device_get(last)
        last = result
    if last is not None:
        yield jax.device_get(last)


def _label(
    teacher: Callable[[jax.Array], jax.Array], batches: Iterable[Mapping[str, Any]]
) -> Iterator[_Rows]:
    """The teacher's predictions, batch by batch, on the devices."""
    for batch in batches:
        log_probs: Any = teacher(batch["image"])
        yield _Rows(log_probs, batch["index"], batch["mask"])


def _counted(batches: Iterable[_Rows], progress: "_Progress") -> Iterator[_Rows]:
    """The same rows; each batch is progress, though only shards are written."""
    for rows in batches:
        progress(len(rows.index))
        yield rows


def _shards(batches: Iterable[_Rows]) -> Iterator[_Rows]:
    """The same rows, several batches at a time."""
    shard: list[_Rows] = []
    for batch in batches:
        shard.append(batch)
        if sum(len(rows.index) for rows in shard) >= _SHARD:
            yield _concatenate(shard)
            shard = []
    if shard:
        yield _concatenate(shard)


def _concatenate(batches: list[_Rows]) -> _Rows:
    return _Rows(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


class _Progress:
    """Prints progress every few seconds."""

    def __init__(self, start: int, images: int, say: Callable[[str], None]) -> None:
        self._start = self._labelled = start
        self._images = images
        self._say = say
        self._started = self._reported = time.monotonic()
        if start:
            say(f"{start:,} of {images:,} images are labelled already.")

    def __call__(self, more: int) -> None:
        now = time.monotonic()
        self._labelled += more
        if now >= self._reported + _EVERY and self._labelled < self._images:
            rate = (self._labelled - self._start) / (now - self._started)
            left = (self._images - self._labelled) / rate / 60
            self._say(
                f"{self._labelled:,} of {self._images:,} images are labelled, "
                f"{rate:,.0f} per second; {left:.1f} min left."
            )
            self._reported = now
