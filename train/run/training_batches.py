"""The batches that a run trains on: labelled and unlabelled images."""

import contextlib
from collections.abc import Generator, Mapping

from train.data import (
    BadImages,
    Source,
    balanced,
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
      program: the program of the run.
      start: number of completed steps.
      unreadable: collects unreadable images, for `train` and `unlabelled`.
    """
    is_balanced = program.config.uneven_classes.balanced_sampling

    def batches_of(split: str, source: Source, spec: BatchSpec) -> Generator[Batch]:
        source = repeat_to(source, spec.batch_size)
        return train_batches(
            balanced(source) if is_balanced and split == "train" else source,
            **spec._asdict(),
            **program.decode_options(training=True),
            seed=program.config.seed,
            start_step=start,
            bad_images=unreadable[split] if unreadable else None,
            **program.process,
        )

    batches = batches_of("train", program.train, program.train_batch)
    if program.unlabelled is not None:
        spec = program.unlabelled_batch
        unlabelled = batches_of("unlabelled", program.unlabelled, spec)
        batches = _joined(batches, unlabelled)
    return prefetch_to_device(batches, program.placement.sharded)


def _joined(
    batches: Generator[Batch], unlabelled: Generator[Batch]
) -> Generator[Batch]:
    """Adds a batch of unlabelled images to each batch; closes both streams."""
    with contextlib.closing(batches), contextlib.closing(unlabelled):
        for batch, other in zip(batches, unlabelled, strict=True):
            yield {**batch, "unlabelled": other}
