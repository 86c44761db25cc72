"""Sets of images that fit in memory: digits, the MNIST family, arrays in a file."""

import gzip
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from train.data.source import Source, SourceError, Splits, array_source

__all__ = ["digits", "idx", "npz"]

_DIGITS = tuple("0123456789")
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


def digits(path: str) -> Splits:
    """1,797 handwritten digits of 8 x 8 pixels, grey, that scikit-learn carries.

    The pixels' 0 to 16 become 0 to 255. The set is not split.

    Raises:
      SourceError: a path was given; there is nothing to choose.
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
    """A folder in the format of MNIST: `train-images-idx3-ubyte`, gzipped or not.

    The files are `{train,t10k}-images-idx3-ubyte[.gz]` and
    `{train,t10k}-labels-idx1-ubyte[.gz]`. The ten classes are `0` to `9`, or the
    garments of Fashion-MNIST where the path says fashion; a file `classes.txt` beside
    them, one name a line, says otherwise.

    Raises:
      SourceError: the folder is not there.
    """
    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        raise SourceError(f"idx:{path}: there is no such folder")
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
        return tuple(names.read_text().splitlines())
    return _FASHION if "fashion" in str(folder).lower() else _DIGITS


def _read_idx(folder: Path, name: str, ndim: int, spec: str) -> np.ndarray:
    """The bytes of one file in its shape: magic 0, 0, 8 (uint8), rank, then sizes."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None)
    if path is None:
        raise SourceError(f"{spec}: there is no file {name} or {name}.gz")
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    start = 4 + 4 * ndim
    if data[:4] != bytes((0, 0, 8, ndim)) or len(data) < start:
        raise SourceError(
            f"{path} is not an idx file of rank {ndim} with unsigned bytes: it begins "
            f"with {data[:start].hex(' ')}"
        )
    shape = np.frombuffer(data, ">u4", ndim, offset=4).astype(int)
    values = np.frombuffer(data, np.uint8, offset=start)
    if values.size != shape.prod():
        raise SourceError(
            f"{path} holds {values.size} values, but says that it has {shape.tolist()}"
        )
    return values.reshape(shape)


def npz(path: str) -> Splits:
    """Arrays in a NumPy file: `x_train`, `y_train`, `x_test`, `y_test` (and `x_val`).

    Also `train_images`, `train_labels` and so on, or `images` and `labels` for a set
    that is not split. Images are uint8 `[n, h, w]` or `[n, h, w, C]`; labels are
    integers `[n]` or `[n, 1]`. The classes are `class_names`, or else the numbers up to
    the largest label for training.

    Raises:
      SourceError: the file is not there, not such a file, or has no such arrays.
    """
    spec, file = f"npz:{path}", Path(path).expanduser()
    if not path or not file.is_file():
        raise SourceError(f"{spec}: there is no such file")
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
            f"{spec} has the arrays {', '.join(names)}; expected are x_train and "
            "y_train, train_images and train_labels, or images and labels"
        )
    return {split: partial(_npz, spec, file, pairs, split) for split in pairs}


def _npz(
    spec: str, file: Path, pairs: dict[str, tuple[str, str]], split: str
) -> Source:
    images, labels = (_load(spec, file, name) for name in pairs[split])
    if images.ndim == 3:
        images = images[..., None]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    classes = _npz_classes(spec, file, pairs)
    return array_source(spec, images, labels, classes, f"{split}/{{}}".format)


def _npz_classes(
    spec: str, file: Path, pairs: dict[str, tuple[str, str]]
) -> tuple[str, ...]:
    if "class_names" in _load(spec, file, None):
        return tuple(str(name) for name in _load(spec, file, "class_names"))
    first = pairs.get("train") or next(iter(pairs.values()))
    largest = int(_load(spec, file, first[1]).max(initial=0))
    return tuple(str(k) for k in range(largest + 1))


def _load(spec: str, file: Path, name: str | None) -> Any:
    """One array of the file, or the names of all of them."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays.files if name is None else arrays[name]
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        what = "" if name is None else f"{name} of "
        raise SourceError(f"{spec}: {what}{file} cannot be read: {error}") from error
