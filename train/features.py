"""The backbone's features of a run's images: computed once, kept on disk.

Where the backbone stays as it is and nothing random comes before it, an image has the
same features in every epoch. They lie in the run's folder, `features_train.npy` and
`features_test.npy`, float `[n, F]`, NaN where an image cannot be read; where a file is
missing it is made again. The head learns on them as it would on the images, but for
rounding.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

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
from train.errors import UserError
from train.images import reading
from train.program import Program
from train.record import build_model, pixel_inputs
from train.step import TrainState

__all__ = ["features_of", "with_features"]


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
        found = features_of(
            partial(step, state.variables), prefetch_to_device(batches, placement.split)
        )
        rows = _kept(run / f"features_{split}.npy", source, found)
        return _filled(source, rows, bad_images[split], replaced=split == "train")

    train, test = given("train", program.train), given("test", program.test)
    return replace(program, train=train, test=test)


def features_of(
    step: Callable[[jax.Array], jax.Array], batches: Iterable[Mapping[str, Any]]
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Indices and features, a batch at a time, of the images that can be read.

    Args:
      step: from pixels `uint8 [N, H, W, C]` to features `[N, F]`.
      batches: on the device, from `train.data.eval_batches`.
    """
    for batch in batches:
        rows, readable = np.asarray(step(batch["image"])), np.asarray(batch["mask"]) > 0
        yield np.asarray(batch["index"])[readable], rows[readable]


def _kept(
    path: Path, source: Source, found: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """The features in a file, which is written first if it is not there: whole, or not.

    Args:
      path: the file.
      source: the images, with room for features.
      found: what `features_of` gives for them.

    Raises:
      UserError: if the file is of other images, by their number.
    """
    room = source.beside["features"]
    if not path.exists():
        new = path.with_name(f".{path.name}.new")
        rows = np.lib.format.open_memmap(new, "w+", dtype=room.dtype, shape=room.shape)
        rows[:] = np.nan
        for index, features in found:
            rows[index] = features
        rows.flush()
        os.replace(new, path)
    rows = np.load(path, mmap_mode="r")  # A row is read when it is wanted.
    if rows.shape != room.shape:
        raise UserError(
            f"{path} holds features of shape {list(rows.shape)}, and the images want "
            f"{list(room.shape)}. Remove it, and it is made again."
        )
    return rows


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
