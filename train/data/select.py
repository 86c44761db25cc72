"""The images that a config asks for, and how they are decoded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn_flax.weights.preprocessing import allow_pixels
from cnn_flax.weights.unpacking import allow_bytes
from train.config import Config
from train.data import Source, open_source
from train.data.label_stream import shard_labelled
from train.data.open_source import Split, check_outside, check_several_classes
from train.data.pseudo_label_file import pseudo_labelled
from train.data.shards import PREFIX, list_shards
from train.errors import UserError

__all__ = [
    "check_output",
    "decode_options",
    "evaluation_images",
    "open_unlabelled",
    "training_images",
    "unlabelled_images",
]


def check_output(config: Config, out: Path) -> None:
    """Raises `UserError` if what is written to a path would be taken for images.

    Args:
      config: config of the run, whose images are meant.
      out: the file or folder to write to.
    """
    check_outside(out, config.input.data, config.unlabelled.unlabelled)


def _allow_sizes(config: Config) -> None:
    """Sets how large images and arrays may be, before any is opened."""
    allow_pixels(config.input.max_pixels)
    allow_bytes(config.input.max_unpacked_bytes)


def training_images(config: Config) -> Source:
    """The labelled images to train on.

    Raises:
      SourceError: if there are none, or they are of one class.
    """
    return check_several_classes(_open_selection(config))


def unlabelled_images(
    config: Config,
    class_names: Sequence[str] | None = None,
    source: Source | None = None,
) -> Source | None:
    """The unlabelled images, if the config names any.

    Labels that the source may have are not used. The column `image_index` holds each
    image's index in the set. Pseudo-labels replace the labels, and select the images;
    those of shards are in random order without that column.

    Args:
      config: config of the run.
      class_names: classes of the labelled images; the pseudo-labels must have the same.
      source: the unlabelled set, if it is open already.

    Raises:
      SourceError: if there are none.
      UserError: if none are left, or the pseudo-labels are of other images.
    """
    options = config.unlabelled
    if not options.unlabelled:
        return None
    if options.unlabelled.startswith(PREFIX):
        _allow_sizes(config)
        return shard_labelled(
            Path(options.pseudo_labels),
            list_shards(options.unlabelled),
            class_names=class_names,
            min_confidence=options.min_confidence,
            per_class=options.per_class,
            kind=options.pseudo_label_kind,
        )
    if source is None:
        source = open_unlabelled(config, options.unlabelled)
    index = np.arange(len(source), dtype=np.int32)
    source = source.with_columns(image_index=index)
    if not options.pseudo_labels:
        return source
    return pseudo_labelled(
        Path(options.pseudo_labels),
        source,
        class_names=class_names,
        min_confidence=options.min_confidence,
        per_class=options.per_class,
        kind=options.pseudo_label_kind,
        seed=config.seed,
    )


def open_unlabelled(
    config: Config, spec: str, split: Split = "train", *, cache: bool = True
) -> Source:
    """Opens images whose labels, if they have any, are not used.

    Args:
      config: config of the run; its seed splits a set that has no splits.
      spec: a data source, or `rest`: the training images that the config leaves out.
      split: `train`, `val` or `test`.
      cache: whether the images of a small set stay in memory once read.

    Raises:
      SourceError: if there are none.
      UserError: if none are left.
    """
    if spec == "rest":
        if split != "train":
            raise UserError(
                f"The rest are training images: there is no {split} split of them."
            )
        source = _open_selection(config, rest=True, cache=cache)
        if not len(source):
            raise UserError(
                "No images are left over: the rest are the training images that "
                "--labels-per-class, --count or --share leave out."
            )
        return source
    _allow_sizes(config)
    # `val_share` is for the run's own set; another one has its own splits.
    is_own = spec == config.input.data and split != "test"
    return open_source(
        spec,
        split,
        seed=config.seed,
        val_share=config.selection.val_share if is_own else 0.0,
        labelled=False,
        cache=cache,
    )


def _open_selection(config: Config, **options: Any) -> Source:
    _allow_sizes(config)
    select = config.selection
    return open_source(
        config.input.data,
        "train",
        seed=config.seed,
        val_share=select.val_share,
        count=select.count or None,
        share=select.share if select.share < 1 else None,
        labels_per_class=select.labels_per_class or None,
        imbalance=select.imbalance,
        **options,
    )


def evaluation_images(
    config: Config, data: str | None = None, split: Split | None = None
) -> Source:
    """The images to evaluate on.

    Args:
      config: config of the run.
      data: a data source to use instead of the run's.
      split: a split to use instead of the run's: `train`, `val` or `test`.

    Raises:
      SourceError: if there are none.
    """
    _allow_sizes(config)
    # `val_share` is for the run's own set; another one has its own splits.
    val_share = config.selection.val_share if data is None else 0.0
    return open_source(
        data or config.input.data,
        split or config.selection.eval_split,
        seed=config.seed,
        val_share=val_share,
    )


def decode_options(config: Config, *, training: bool = False) -> dict[str, Any]:
    """Options of `train.data.train_batches` and `eval_batches` for decoding images.

    Args:
      config: config of the run.
      training: whether the images are for training. If so, `load_size` turns off the
        central crop, since windows are cropped later, on the device, and
        `crop_at_decode` crops random windows.
    """
    is_uncropped = training and config.input.load_size
    options = {
        "crop_pct": 1.0 if is_uncropped else config.input.crop_pct,
        "interpolation": config.input.interpolation,
        "crop_mode": config.input.crop_mode,
        "threads": config.input.threads or None,
    }
    if training and config.augment.crop_at_decode:
        options["window_scale"] = (config.augment.crop_scale, 1.0)
    return options
