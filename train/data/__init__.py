"""The input pipeline: sources, decoding, batching, transfer to the device."""

from train.data.bad_images import BadImages, BadImagesError
from train.data.decode import DecodeError, read_image
from train.data.open_source import Source, SourceError, open_source
from train.data.pipeline import (
    eval_batches,
    prefetch_to_device,
    steps_per_epoch,
    train_batches,
)
from train.data.source import repeat_to
from train.data.uneven import balanced

__all__ = [
    "BadImages",
    "BadImagesError",
    "DecodeError",
    "Source",
    "SourceError",
    "balanced",
    "eval_batches",
    "open_source",
    "prefetch_to_device",
    "read_image",
    "repeat_to",
    "steps_per_epoch",
    "train_batches",
]
