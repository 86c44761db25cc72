"""The images that a config asks for, and how they are decoded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.config import Config
from train.data import Source, open_source
from train.data.open_source import Split
from train.data.pseudo_label_file import pseudo_labelled
from train.errors import UserError

__all__ = [
    "decode_options",
    "evaluation_images",
    "open_unlabelled",
    "training_images",
    "unlabelled_images",
]


def training_images(config: Config) -> Source:
    """The labelled images to train on.

    Raises:
      SourceError: if there are none.
    """
    return _selected(config)


def unlabelled_images(
    config: Config,
    class_names: Sequence[str] | None = None,
    source: Source | None = None,
) -> Source | None:
    """The unlabelled images, if the config names any.

    Labels that the source may have are never learned from. The column `image_index`
    holds each image's place in the set. With pseudo-labels, these replace the labels,
    and select the images.

    Args:
      config: of the run.
      class_names: of the labelled images; those of the pseudo-labels must be the same.
      source: the set, if it is open already.

    Raises:
      SourceError: if there are none.
      UserError: if none are left, or the pseudo-labels are of other images.
    """
    options = config.unlabelled
    if not options.unlabelled:
        return None
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
    config: Config, spec: str, split: Split = "train", *, keep: bool = True
) -> Source:
    """Opens images whose labels, if they have any, are not learned from.

    Args:
      config: of the run; its seed splits a set that has no splits.
      spec: a data source, or `rest`: the training images that the config leaves out.
      split: which of the images.
      keep: whether the images of a small set stay in memory once they have been read.

    Raises:
      SourceError: if there are none.
      UserError: if none are left.
    """
    if spec == "rest":
        if split != "train":
            raise UserError(f"The rest are training images; there are none of {split}.")
        source = _selected(config, rest=True, keep=keep)
        if not len(source):
            raise UserError(
                "No images are left over: rest are the training images that "
                "--labels-per-class, --count or --share leave out."
            )
        return source
    # Another set has its own splits.
    own = spec == config.input.data and split != "test"
    return open_source(
        spec,
        split,
        seed=config.seed,
        val_share=config.selection.val_share if own else 0.0,
        labelled=False,
        keep=keep,
    )


def _selected(config: Config, **options: Any) -> Source:
    select = config.selection
    return open_source(
        config.input.data,
        "train",
        seed=config.seed,
        val_share=select.val_share,
        count=select.count or None,
        share=select.share if select.share < 1 else None,
        labels_per_class=select.labels_per_class or None,
        **options,
    )


def evaluation_images(
    config: Config, data: str | None = None, split: Split | None = None
) -> Source:
    """The images to evaluate on.

    Args:
      config: of the run.
      data: another data source than the run's.
      split: another split than the run's, `train`, `val` or `test`.

    Raises:
      SourceError: if there are none.
    """
    # Another set has its own splits.
    val_share = config.selection.val_share if data is None else 0.0
    return open_source(
        data or config.input.data,
        split or config.selection.eval_split,
        seed=config.seed,
        val_share=val_share,
    )


def decode_options(config: Config, *, training: bool = False) -> dict[str, Any]:
    """How images are decoded: options of `train.data.train_batches` and `eval_batches`.

    Args:
      config: of the run.
      training: whether the images are for training: with `load_size` they are then
        decoded without a central crop, for windows to be cut from, and with
        `crop_at_decode` random windows are decoded.
    """
    is_whole = training and config.input.load_size
    options = {
        "crop_pct": 1.0 if is_whole else config.input.crop_pct,
        "interpolation": config.input.interpolation,
        "threads": config.input.threads or None,
    }
    if training and config.augment.crop_at_decode:
        options["window_scale"] = (config.augment.crop_scale, 1.0)
    return options
