"""The batches that a run learns from: of images with labels, and of those without."""

import contextlib
from collections.abc import Generator, Mapping
from typing import Any

from train.config import Config
from train.data import (
    BadImages,
    Source,
    at_least,
    prefetch_to_device,
    train_batches,
)
from train.inputs import Batch
from train.program import Program

__all__ = ["training_stream"]


def training_stream(
    config: Config,
    program: Program,
    start: int = 0,
    unreadable: Mapping[str, BadImages] | None = None,
) -> Generator[Batch, None, None]:
    """Batches on the devices, from a step on, without end.

    Args:
      config: the run's.
      program: built from it.
      start: number of steps done before.
      unreadable: notes the images that cannot be read, of `train` and `unlabelled`.
    """

    def stream(split: str, source: Source, options: dict[str, Any]) -> Generator[Batch]:
        return train_batches(
            at_least(source, options["batch_size"]),
            **options,
            **program.reading(config, training=True),
            seed=config.seed,
            start_step=start,
            bad_images=unreadable[split] if unreadable else None,
        )

    batches = stream("train", program.train, program.train_options)
    if program.unlabelled is not None:
        options = program.unlabelled_options
        others = stream("unlabelled", program.unlabelled, options)
        batches = _together(batches, others)
    return prefetch_to_device(batches, program.placement.split)


def _together(batches: Generator[Batch], others: Generator[Batch]) -> Generator[Batch]:
    with contextlib.closing(batches), contextlib.closing(others):
        for batch, more in zip(batches, others, strict=True):
            yield {**batch, "unlabelled": more}
