"""The backbone's features of a run's images: computed once, kept on disk.

Where the backbone stays as it is and nothing random comes before it, an image has the
same features in every epoch. They lie in the run's folder, `features_train.npy` and
`features_test.npy`, float `[n, F]`, NaN where an image cannot be read; where a file is
missing it is made again. The head learns on them as it would on the images, but for
rounding.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from train.config import Config
from train.data import (
    BadImages,
    ImageError,
    Source,
    eval_batches,
    prefetch_to_device,
)
from train.images import reading
from train.kept import kept_rows, rows_of
from train.program import Program
from train.record import build_model, pixel_inputs
from train.step import TrainState

__all__ = ["with_features"]


def with_features(
    config: Config,
    program: Program,
    run: Path,
    state: TrainState,
    bad_images: Mapping[str, BadImages],
) -> Program:
    """The program with features beside its images, which expect them.

    Args:
      config: of the run.
      program: of the run.
      run: its folder.
      state: of any step; the backbone is the same in all.
      bad_images: notes the images that cannot be read, by `train` and `test`.

    Raises:
      UserError: if a file holds features of other images, by their number.
    """
    model = build_model(program.record).clone(num_classes=0)
    prepare, placement = pixel_inputs(program.record), program.placement
    step = jax.jit(lambda variables, images: model.apply(variables, prepare(images)))
    sizes = {"train": config.input.trained_size, "test": config.input.image_size}

    def given(split: str, source: Source) -> Source:
        batches = eval_batches(
            source,
            **{**program.eval_options, "image_size": sizes[split]},
            **reading(config, training=split == "train"),
            bad_images=bad_images[split],
        )
        on_device = prefetch_to_device(batches, placement.split)
        found = rows_of(partial(step, state.variables), on_device)
        path = run / f"features_{split}.npy"
        rows = kept_rows(path, source.beside["features"], found)
        return _filled(source, rows, bad_images[split], replaced=split == "train")

    train, test = given("train", program.train), given("test", program.test)
    return replace(program, train=train, test=test)


def _filled(
    source: Source, rows: np.ndarray, bad: BadImages, *, replaced: bool
) -> Source:
    """The images with their features.

    Args:
      source: the images, with room for features.
      rows: the features.
      bad: notes the images that cannot be read.
      replaced: whether the next one that can be takes the place of one that cannot,
        as in training.
    """
    source = replace(source, beside={**source.beside, "features": rows})
    unreadable = np.isnan(rows[:, 0])
    for i in np.flatnonzero(unreadable):
        if source.name(int(i)) not in bad.found:
            bad.add(ImageError(source.name(int(i)), "it could not be before"))
    if not (replaced and unreadable.any()):
        return source
    place = np.arange(len(source))
    readable = np.append(place[~unreadable], place[~unreadable][0] + len(source))
    return source.take(readable[np.searchsorted(readable, place)] % len(source))
