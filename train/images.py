"""The images that a config asks for, and how they are brought to size."""

from dataclasses import replace
from typing import Any

import numpy as np

from train.config import Config
from train.data import Source, open_source
from train.data.sources import Split
from train.errors import UserError

__all__ = ["evaluation_images", "reading", "training_images", "unlabelled_images"]


def training_images(config: Config) -> Source:
    """The images to learn from.

    Raises:
      SourceError: if there are none such.
    """
    return _selected(config)


def unlabelled_images(config: Config) -> Source | None:
    """The images without labels, where the config names some.

    Their labels, where the source has some, are never learned from. Beside each image
    is its place in the set, `image_index`.

    Raises:
      SourceError: if there are none such.
      UserError: if none are left.
    """
    spec = config.unlabelled.unlabelled
    if not spec:
        return None
    source = _selected(config, rest=True) if spec == "rest" else open_source(spec)
    if not len(source):
        raise UserError(
            "--unlabelled rest has no images: the labelled ones are all. Give "
            "--labels-per-class, --count or --share."
        )
    index = np.arange(len(source), dtype=np.int32)
    return replace(source, beside={"image_index": index})


def _selected(config: Config, rest: bool = False) -> Source:
    select = config.selection
    return open_source(
        config.input.data,
        "train",
        seed=config.seed,
        val_share=select.val_share,
        count=select.count or None,
        share=select.share if select.share < 1 else None,
        labels_per_class=select.labels_per_class or None,
        rest=rest,
    )


def evaluation_images(
    config: Config, data: str | None = None, split: Split | None = None
) -> Source:
    """The images to be judged on.

    Args:
      config: of the run.
      data: another source than the run's.
      split: another split than the run's, `train`, `val` or `test`.

    Raises:
      SourceError: if there are none such.
    """
    # Another set has its own splits.
    val_share = config.selection.val_share if data is None else 0.0
    return open_source(
        data or config.input.data,
        split or config.selection.eval_split,
        seed=config.seed,
        val_share=val_share,
    )


def reading(config: Config, *, training: bool = False) -> dict[str, Any]:
    """How images are read: options of `train.data.train_batches` and `eval_batches`.

    Args:
      config: of the run.
      training: whether the images are to be trained on; with `load_size` they are
        loaded whole then, for windows to be cut from, and with `crop_at_decode` windows
        are what is loaded.
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
