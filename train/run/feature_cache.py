"""On-disk cache of a frozen backbone's features.

If the backbone is frozen and images are not augmented, the features of an image are the
same in every epoch. They are computed once, into `features_train.npy` and
`features_test.npy` in the run's folder, float `[n, F]`, NaN for an image that cannot be
read; a missing file is computed again. Up to rounding, the head learns the same as on
the images.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from cnn_flax.weights.variables import flatten
from train.data import (
    BadImages,
    DecodeError,
    Source,
    eval_batches,
    prefetch_to_device,
)
from train.data.select import decode_options
from train.learn.step import TrainState
from train.run.output_cache import cache_key, cached_rows, output_rows
from train.run.program import Program
from train.run.record import build_model, pixel_inputs

__all__ = ["with_backbone_features"]


def with_backbone_features(
    program: Program,
    run: Path,
    state: TrainState,
    bad_images: Mapping[str, BadImages],
) -> Program:
    """Adds the backbone's features to a program's images, as a column.

    Args:
      program: the program of a run on features; its images have room for them.
      run: the run's folder.
      state: the state of any step, as the backbone never changes.
      bad_images: collects unreadable images, for `train` and `test`.

    Raises:
      BadImagesError: if too many images cannot be read.
      UserError: if a file is of another backbone or of other images.
    """
    config, placement = program.config, program.placement
    model = build_model(program.record).clone(num_classes=0)
    prepare = pixel_inputs(program.record)
    step = jax.jit(lambda variables, images: model.apply(variables, prepare(images)))
    backbone = placement.fetch(_used_by(model, program, state.variables))
    sizes = {"train": config.input.trained_size, "test": config.input.image_size}

    def cached(source: Source, split: str) -> Source:
        batches = eval_batches(
            source,
            **program.eval_batch._replace(image_size=sizes[split])._asdict(),
            **decode_options(config, training=split == "train"),
            **program.process,
            bad_images=bad_images[split],
        )
        on_device = prefetch_to_device(batches, placement.sharded)
        rows = output_rows(partial(step, state.variables), on_device, placement)
        path = run / f"features_{split}.npy"
        key = cache_key(backbone, source, sizes[split], program.record["input"])
        features = cached_rows(path, source.columns["features"], rows, key)
        return _with_features(
            source, features, bad_images[split], replace_unreadable=split == "train"
        )

    train, test = cached(program.train, "train"), cached(program.test, "test")
    return replace(program, train=train, test=test)


def _used_by(model: nn.Module, program: Program, variables: Any) -> dict[str, Any]:
    """The variables that a model without a head has, by their paths."""
    size, channels = (
        program.config.input.image_size,
        program.record["input"]["channels"],
    )
    images = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    names = flatten(jax.eval_shape(model.init, jax.random.key(0), images))
    return {name: x for name, x in flatten(variables).items() if name in names}


def _with_features(
    source: Source, features: np.ndarray, bad: BadImages, *, replace_unreadable: bool
) -> Source:
    """The images with their features.

    Args:
      source: the images, with room for features.
      features: `[n, F]`, NaN for unreadable images.
      bad: collects unreadable images.
      replace_unreadable: whether the next readable image replaces an unreadable one, as
        in training.
    """
    source = source.with_columns(features=features)
    unreadable = np.isnan(features[:, 0])
    for i in np.flatnonzero(unreadable):
        if source.name(int(i)) not in bad.found:
            bad.add(
                DecodeError(
                    source.name(int(i)),
                    "it was unreadable when its features were cached",
                )
            )
    if not (replace_unreadable and unreadable.any()):
        return source
    place = np.arange(len(source))
    readable = np.append(place[~unreadable], place[~unreadable][0] + len(source))
    return source.take(readable[np.searchsorted(readable, place)] % len(source))
