"""Data sets that fit in memory: digits, the MNIST family, arrays in a file."""

import gzip
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cnn_flax.weights.errors import listing_of, name_of, reason_of
from cnn_flax.weights.unpacking import (
    TooLargeError,
    array_names,
    most_bytes,
    read_arrays,
)
from train.data.multi_label import multi_label_arrays
from train.data.source import Source, SourceError, Splits, array_source

__all__ = ["digits", "idx", "npz"]

_DIGITS = tuple("0123456789")
_MOST_CLASSES = 100_000  # That labels without names may number.
_ADVICE = "; --max-unpacked-bytes N allows more"
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Where the recipes' images come from, as the end of a message.
_GET_FASHION = (
    ". For Fashion-MNIST, on Debian and Ubuntu: sudo apt install "
    "dataset-fashion-mnist; elsewhere, put the four files *-ubyte.gz of "
    "https://github.com/zalandoresearch/fashion-mnist, folder data/fashion, into a "
    "folder and give --data idx:FOLDER"
)


def digits(path: str) -> Splits:
    """scikit-learn's 1,797 handwritten digits, grey, 8 x 8 pixels; no splits.

    Pixel values are scaled from [0, 16] to [0, 255].

    Raises:
      SourceError: if a path is given: there is only one such set.
    """
    if path:
        raise SourceError(f"digits takes no path, but {path!r} was given")
    return {"train": _digits}


def _digits() -> Source:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return array_source("digits", images, labels, _DIGITS, "digits/{}".format)


def idx(path: str) -> Splits:
    """A folder in MNIST's format: `train-images-idx3-ubyte` etc., gzipped or not.

    The files are `{train,t10k}-images-idx3-ubyte[.gz]` and
    `{train,t10k}-labels-idx1-ubyte[.gz]`. The class names are read from `classes.txt`
    in the same folder, one per line. Without that file they are Fashion-MNIST's
    garments if the path contains "fashion", else `0` to `9`.

    Raises:
      SourceError: if there is no such folder.
    """
    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        hint = _GET_FASHION if "fashion" in path.lower() else ""
        raise SourceError(f"idx:{path}: no such folder{hint}")
    return {
        "train": partial(_idx, folder, "train", f"idx:{path}"),
        "test": partial(_idx, folder, "t10k", f"idx:{path}"),
    }


def _idx(folder: Path, part: str, spec: str) -> Source:
    images = _read_idx(folder, f"{part}-images-idx3-ubyte", 3, spec)
    labels = _read_idx(folder, f"{part}-labels-idx1-ubyte", 1, spec)
    return array_source(
        spec, images[..., None], labels, _idx_classes(folder), f"{part}/{{}}".format
    )


def _idx_classes(folder: Path) -> tuple[str, ...]:
    names = folder / "classes.txt"
    if names.is_file():
        return tuple(names.read_text("utf-8", "surrogateescape").splitlines())
    return _FASHION if "fashion" in str(folder).lower() else _DIGITS


def _read_idx(folder: Path, name: str, ndim: int, spec: str) -> np.ndarray:
    """Reads an idx file: magic 0, 0, 8 (uint8), rank; the sizes; then the values."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None)
    if path is None:
        raise SourceError(f"{spec}: no file {name} or {name}.gz")
    if not path.is_file():
        raise SourceError(f"{path} is no regular file")
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rb") as file:
            start = 4 + 4 * ndim
            head = file.read(start)
            if head[:4] != bytes((0, 0, 8, ndim)) or len(head) < start:
                raise SourceError(
                    f"{path} is not an idx file of unsigned bytes and rank {ndim}: it "
                    f"begins with {head.hex(' ')}"
                )
            shape = np.frombuffer(head, ">u4", offset=4).tolist()
            size = math.prod(shape)
            most = most_bytes(path.stat().st_size)
            if size > most:
                raise TooLargeError(size, most, _ADVICE)
            values = np.frombuffer(file.read(size + 1), np.uint8)
    except SourceError:
        raise
    except Exception as error:  # On damaged files gzip raises nearly anything.
        raise SourceError(f"{path} cannot be read: {reason_of(error)}") from error
    if values.size != size:
        more = "more than " * (values.size > size)
        raise SourceError(
            f"{path} holds {more}{min(values.size, size)} values, but its header says "
            f"{shape}"
        )
    return values.reshape(shape)


def npz(path: str) -> Splits:
    """Arrays in a NumPy file: `x_train`, `y_train`, `x_test`, `y_test` (and `x_val`).

    Also `train_images`, `train_labels` and so on, or `images` and `labels` for a set
    without splits. Images are uint8 `[n, h, w]` or `[n, h, w, C]`; labels are integers
    or strings, `[n]` or `[n, 1]`; or, where an image may have several of K classes, 0
    and 1, `[n, K]` with K above 1. The class names are the array `class_names`; without
    it, the different strings among the training labels, sorted, or the numbers from 0
    to the largest of them, or to K - 1.

    Raises:
      SourceError: if there is no such file, it is not a NumPy file, or it lacks these
        arrays.
    """
    spec, file = f"npz:{path}", Path(path).expanduser()
    if not path or not file.is_file():
        raise SourceError(f"{spec}: no such file")
    names = _load(spec, file, None)
    pairs = {
        split: pair
        for split in ("train", "val", "test")
        for pair in (
            (f"x_{split}", f"y_{split}"),
            (f"{split}_images", f"{split}_labels"),
            *([("images", "labels")] if split == "train" else []),
        )
        if set(pair) <= set(names)
    }
    if not pairs:
        raise SourceError(
            f"{spec} has the arrays {listing_of(map(name_of, names))}; expected "
            "x_train and y_train, train_images and train_labels, or images and labels"
        )
    return {split: partial(_npz, spec, file, pairs, split) for split in pairs}


def _npz(
    spec: str, file: Path, pairs: dict[str, tuple[str, str]], split: str
) -> Source:
    images, labels = (
        _load(spec, file, pairs[split][0]),
        _labels(spec, file, pairs[split]),
    )
    if images.ndim == 3:
        images = images[..., None]
    classes = _npz_classes(spec, file, pairs)
    name = f"{split}/{{}}".format
    if labels.ndim == 2:
        first = pairs.get("train") or pairs[split]
        _check_several(spec, first[1], _labels(spec, file, first))
        return multi_label_arrays(spec, images, labels, classes, name)
    if labels.dtype.kind == "U":
        labels = _as_numbers(spec, labels, classes)
    return array_source(spec, images, labels, classes, name)


def _check_several(spec: str, name: str, labels: np.ndarray) -> None:
    """Raises `SourceError` if labels `[n, K]` are those of one class per image."""
    if labels.ndim == 2 and (labels.astype(float).sum(axis=1) == 1).all():
        raise SourceError(
            f"{spec}: {name} is {labels.dtype} {list(labels.shape)} with one class per "
            f"image; save {name}.argmax(-1)"
        )


def _npz_classes(
    spec: str, file: Path, pairs: dict[str, tuple[str, str]]
) -> tuple[str, ...]:
    if "class_names" in _load(spec, file, None):
        classes = _as_text(_load(spec, file, "class_names"))
        if classes.dtype.kind != "U" or classes.ndim != 1:
            raise SourceError(
                f"{spec}: class_names is {classes.dtype} {list(classes.shape)}; it "
                "must be strings [K]"
            )
        return tuple(classes.tolist())
    labels = _labels(spec, file, pairs.get("train") or next(iter(pairs.values())))
    if labels.ndim == 2:
        return tuple(map(str, range(labels.shape[1])))
    if labels.dtype.kind == "U":
        return tuple(np.unique(labels).tolist())
    largest = int(labels.max(initial=0))
    if largest >= max(_MOST_CLASSES, len(labels)):
        raise SourceError(
            f"{spec}: label {largest} of {len(labels)} images would make "
            f"{largest + 1:,} classes; number the classes from 0, or give class_names"
        )
    return tuple(str(k) for k in range(largest + 1))


def _labels(spec: str, file: Path, pair: tuple[str, str]) -> np.ndarray:
    """The labels that belong to an array of images.

    They are integers or strings `[n]`, or numbers `[n, K]` if images have several.
    """
    labels = _as_text(_load(spec, file, pair[1]))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf":
        return labels
    if labels.dtype.kind not in "iuU" or labels.ndim != 1:
        raise SourceError(
            f"{spec}: {pair[1]} is {labels.dtype} {list(labels.shape)}; labels must be "
            "integers or strings [n], one per image, or 0 and 1 [n, K], one per image "
            f"and class: if that is what it holds, save {pair[1]}.astype(int)"
        )
    return labels


def _as_text(values: np.ndarray) -> np.ndarray:
    """Bytes as strings; other arrays as they are."""
    if values.dtype.kind != "S":
        return values
    return np.char.decode(values, "utf-8", "surrogateescape")


def _as_numbers(spec: str, labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    number = {name: k for k, name in enumerate(classes)}
    unknown = sorted({name for name in labels.tolist() if name not in number})
    if unknown:
        raise SourceError(
            f"{spec}: the label {name_of(unknown[0])} is none of the {len(classes)} "
            f"classes: {listing_of(map(name_of, classes))}"
        )
    return np.asarray([number[name] for name in labels.tolist()], np.int32)


def _load(spec: str, file: Path, name: str | None) -> Any:
    """One array of the file, or, without a name, the names of all arrays."""
    try:
        with file.open("rb") as stream:
            if name is None:
                return array_names(stream)
            return read_arrays(stream, [name], advice=_ADVICE)[name]
    except Exception as error:  # On damaged files zipfile raises nearly anything.
        array = "" if name is None else f"{name} of "
        raise SourceError(
            f"{spec}: {array}{file} cannot be read: {reason_of(error)}"
        ) from error
