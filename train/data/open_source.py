"""`open_source`: opens the data source that `--data` names."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from cnn_flax.weights.errors import name_of
from train.data.arrays import digits, idx, npz
from train.data.files import files
from train.data.image_folder import folder, image_folders
from train.data.listing import enclosing, identity
from train.data.multi_label import csv_file
from train.data.source import (
    Source,
    SourceError,
    Splits,
    cached,
    stratified_split,
    subset,
)
from train.data.tfds import tfds
from train.data.uneven import long_tailed, long_tailed_shares
from train.errors import UserError

__all__ = [
    "Source",
    "SourceError",
    "Split",
    "check_outside",
    "check_several_classes",
    "open_source",
]

Split = Literal["train", "val", "test"]

# Kind of source, the word before the colon of `--data` -> the function that opens it.
_OPENERS: dict[str, Callable[[str], Splits]] = {
    "csv": csv_file,
    "digits": digits,
    "files": files,
    "folder": folder,
    "idx": idx,
    "npz": npz,
    "tfds": tfds,
}
_TEST_SHARE = 0.2


def open_source(
    spec: str,
    split: Split = "train",
    *,
    seed: int = 0,
    val_share: float = 0.0,
    count: int | None = None,
    share: float | None = None,
    labels_per_class: int | None = None,
    imbalance: float = 1.0,
    rest: bool = False,
    labelled: bool = True,
    cache: bool = True,
) -> Source:
    """Opens one split of a data set.

    Without splits, a random fifth of each class is held out as the test split. If there
    is a validation split but no test split, it serves as the test split too. If there
    is no validation split, `val_share` holds one out of the training images.

    Args:
      spec: one of

        - `csv:FILE`: image files and their classes, any number per image.
        - `digits`: scikit-learn's 1,797 grey digits of 8 x 8 pixels, without splits.
        - `files:PATH`: every file below `PATH`, unlabelled; all of them are `train`.
        - `folder:PATH`: `PATH/{train,val,test}/CLASS/*`, or `PATH/CLASS/*`.
        - `idx:PATH`: a folder in MNIST's format, gzipped or not.
        - `npz:PATH`: arrays `x_train`, `y_train`, `x_test`, `y_test`.
        - `tfds:NAME[@DIR]`: a set prepared by tensorflow-datasets.
      split: `train`, `val` or `test`.
      seed: seed of all random choices: held-out splits and subsets.
      val_share: share of the training images of each class to hold out for validation,
        in `[0, 1)`; must be the same for `train` and `val`.
      count: select this many images at random, regardless of class.
      share: select this share of the images, in `(0, 1]`, regardless of class.
      labels_per_class: select this many images per class; with `imbalance`, of the
        first class.
      imbalance: make the set long-tailed first, see `train.data.uneven.long_tailed`;
        `labels_per_class` has the same shares.
      rest: whether to return the images that are not selected instead.
      labelled: whether the images must have labels.
      cache: whether the images of a small set stay in memory once read.

    Raises:
      SourceError: if there is no such set, split or subset, or a split would be empty.
    """
    kind, _, path = spec.partition(":")
    if kind == "shards":
        raise SourceError(
            f"{spec}: shards are for `pseudo-label --data`, and for --unlabelled with "
            "--pseudo-labels DIR, the labels that it writes"
        )
    if kind not in _OPENERS:
        raise SourceError(f"unknown data {spec!r}: {_nearest(spec)}")
    if split not in get_args(Split):
        raise SourceError(f"unknown split {split!r}: {', '.join(get_args(Split))}")
    splits = _OPENERS[kind](path)
    if kind != "files":
        source = _split(spec, splits, split, seed, val_share)
    elif labelled:
        raise SourceError(
            f"{spec} has no labels to learn from or to evaluate with; folder:PATH, "
            "with one folder per class, does"
        )
    elif split != "train" or val_share or labels_per_class or imbalance != 1:
        raise SourceError(f"{spec} has no labels to split or sample by")
    else:
        source = splits["train"]()
    per_class = labels_per_class
    if imbalance != 1:
        source = long_tailed(source, imbalance, seed)
    if per_class is not None and imbalance != 1:
        shares = long_tailed_shares(len(source.class_names), imbalance)
        per_class = np.maximum(np.round(per_class * shares), 1).astype(int)
    source = subset(
        source,
        count=count,
        share=share,
        labels_per_class=per_class,
        seed=seed,
        rest=rest,
    )
    return cached(source) if cache else source


def _split(
    spec: str, splits: Splits, split: str, seed: int, val_share: float
) -> Source:
    if not 0 <= val_share < 1:
        raise SourceError(f"val_share {val_share} must be in [0, 1)")
    if val_share and "val" in splits:
        raise SourceError(f"{spec} has a validation split: leave out val_share")
    if set(splits) == {"train"}:
        splits = _held_out(splits["train"], "test", _TEST_SHARE, seed)
    if split == "test" and "test" not in splits:
        split = "val"
    if val_share and split != "test" and "train" in splits:
        splits = splits | _held_out(splits["train"], "val", val_share, seed)
    if split not in splits:
        hint = "; val_share holds one out of train" if split == "val" else ""
        raise SourceError(f"{spec} has no {split} split, only {_list(splits)}{hint}")
    return splits[split]()


def _held_out(
    open_whole: Callable[[], Source], name: str, share: float, seed: int
) -> Splits:
    """Splits a set in two: `train`, and the held-out part under `name`."""

    def part(second: bool) -> Source:
        source = open_whole()
        indices = stratified_split(source.strata(), share, seed)[second]
        if not len(indices):
            raise SourceError(_rounded(source, name, share, second))
        return source.take(indices)

    return {"train": lambda: part(False), name: lambda: part(True)}


def _rounded(source: Source, name: str, share: float, second: bool) -> str:
    """Why one part of a split is empty, and what to do."""
    largest = int(np.bincount(source.strata()).max())
    half = 0.5 / largest
    if name == "test":
        advice = "the largest class needs 3, or the set a split test of its own"
    elif second:
        advice = f"val_share must be above {half:.4g}"
    else:
        advice = f"val_share must be below {1 - half:.4g}"
    return (
        f"{source.spec}: no image is left for {name if second else 'train'}: the share "
        f"{share:g} is rounded to whole images, and no class has more than {largest}; "
        f"{advice}"
    )


def check_several_classes(source: Source) -> Source:
    """Returns a labelled set; raises `SourceError` if it has one class only.

    One class is enough where an image may have any number of them.
    """
    if len(source.class_names) != 1 or source.multi_label:
        return source
    (name,) = source.class_names
    message = (
        f"{source.spec} has only the class {name_of(name)}, and a model tells two or "
        "more"
    )
    kind, _, path = source.spec.partition(":")
    if kind == "folder":
        message += f" apart; each folder in {path}, or in its split folders, is a class"
        if (Path(path).expanduser() / name).is_dir():
            message += f". Is it folder:{path}/{name}?"
    else:
        message += " apart"
    raise SourceError(message)


def check_outside(out: Path, *specs: str) -> None:
    """Raises `UserError` if what is written to a path would be taken for images.

    Args:
      out: the file or folder to write to.
      specs: data sources; those that list folders are checked, through links too.
    """
    around = enclosing(out)
    for spec in specs:
        kind, _, path = spec.partition(":")
        root = Path(os.path.expanduser(path))
        if kind not in ("folder", "files") or not root.is_dir():
            continue
        folders = image_folders(spec, root) if kind == "folder" else [root]
        for place in folders:
            if identity(place) in around:
                raise UserError(
                    f"{out} is inside {place}, whose files are the images of {spec}: "
                    "choose another --out."
                )


def _list(names) -> str:
    return ", ".join(sorted(names))


def _nearest(spec: str) -> str:
    """What an unknown source may mean: a path without its kind, or a misspelt kind."""
    kinds = f"available: {_list(_OPENERS)}"
    if kind := _kind_of(Path(os.path.expanduser(spec))):
        return f"did you mean {kind}:{spec}? ({kinds})"
    near = difflib.get_close_matches(spec.partition(":")[0], _OPENERS, n=1)
    return f"did you mean {near[0]}? ({kinds})" if near else kinds


def _kind_of(path: Path) -> str:
    """The kind of source that a path is of; empty if it is of none."""
    if path.is_dir():
        return "idx" if any(path.glob("*-idx3-ubyte*")) else "folder"
    kind = path.suffix.removeprefix(".")
    return kind if path.is_file() and kind in ("csv", "npz") else ""
