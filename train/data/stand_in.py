"""A stand-in for images that are missing, for dry runs and plans."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import cnn_flax
from train.config import Config
from train.data.decode import DecodeError, TargetSide
from train.data.select import evaluation_images, open_unlabelled, training_images
from train.data.source import Source, SourceError
from train.errors import UserError

__all__ = ["RunImages", "images_or_stand_ins", "stand_in"]


class RunImages(NamedTuple):
    """The images of a run, or stand-ins.

    Attributes:
      labelled: those to train and to evaluate on.
      unlabelled: those without labels, where they were asked for.
      are_there: whether they are the images themselves.
    """

    labelled: tuple[Source, Source]
    unlabelled: Source | None
    are_there: bool


def images_or_stand_ins(
    config: Config,
    say: Callable[[str], None],
    *,
    counts: tuple[int, int] = (0, 0),
    unlabelled: bool = False,
    unknown: str = "",
) -> RunImages:
    """The images of a config, or stand-ins for all of them if some cannot be used.

    Args:
      config: the run's config.
      say: prints lines: why images cannot be used, and what takes their place.
      counts: numbers of stand-ins to train and to evaluate on; 0 for one batch.
      unlabelled: whether to open the config's unlabelled images too.
      unknown: what stand-ins leave open, for that line.

    Raises:
      UserError: as `stand_in`.
    """
    try:
        labelled = training_images(config), evaluation_images(config)
        spec = config.unlabelled.unlabelled
        rest = open_unlabelled(config, spec, cache=False) if unlabelled else None
        return RunImages(labelled, rest, True)
    except SourceError as error:
        say(f"The images cannot be used: {error}.")
    train, test = (stand_in(config, count) for count in counts)
    note = f"; {unknown}" if unknown else ""
    say(
        f"A stand-in of {len(train.class_names)} classes and {train.channels} channels "
        f"takes their place{note}."
    )
    return RunImages((train, test), train if unlabelled else None, False)


def stand_in(config: Config, count: int = 0) -> Source:
    """A source with the config's classes, but no readable images.

    Args:
      config: the run's config.
      count: number of images; 0 for one batch.

    Raises:
      UserError: if the model does not exist, or does not have the fields.
    """
    count = count or config.input.batch_size
    network = config.network
    try:
        model = cnn_flax.create_model(network.model, **network.model_fields)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    classes = tuple(str(k) for k in range(getattr(model, "num_classes", 1000)))

    def example(index: int, target_side: TargetSide):
        raise DecodeError(f"image {index}", "it is a stand-in")

    return Source(
        config.input.data,
        classes,
        count,
        example=example,
        name=str,
        find_labels=lambda: np.zeros(count, np.int32),
        channels=len(config.input.mean),
        native_size=None,
    )
