"""The batches that a run trains on: labelled images, and unlabelled ones."""

import contextlib
from collections.abc import Generator, Mapping

from train.data import (
    BadImages,
    Source,
    prefetch_to_device,
    repeat_to,
    train_batches,
)
from train.learn.inputs import Batch
from train.run.program import BatchSpec, Program

__all__ = ["training_batches"]


def training_batches(
    program: Program,
    start: int = 0,
    unreadable: Mapping[str, BadImages] | None = None,
) -> Generator[Batch, None, None]:
    """An endless stream of batches on the devices.

    Args:
      program: the run's.
      start: number of steps done before.
      unreadable: collects the images that cannot be read, of `train` and `unlabelled`.
    """

    def stream(split: str, source: Source, spec: BatchSpec) -> Generator[Batch]:
        return train_batches(
            repeat_to(source, spec.batch_size),
            **spec._asdict(),
            **program.decode_options(training=True),
            seed=program.config.seed,
            start_step=start,
            bad_images=unreadable[split] if unreadable else None,
        )

    batches = stream("train", program.train, program.train_batch)
    if program.unlabelled is not None:
        unlabelled = stream("unlabelled", program.unlabelled, program.unlabelled_batch)
        batches = _joined(batches, unlabelled)
    return prefetch_to_device(batches, program.placement.sharded)


def _joined(
    batches: Generator[Batch], unlabelled: Generator[Batch]
) -> Generator[Batch]:
    with contextlib.closing(batches), contextlib.closing(unlabelled):
        for batch, stream in zip(batches, unlabelled, strict=True):
            yield {**batch, "unlabelled": stream}
