"""Label shards: the most probable classes of the images of one shard each.

`DIR/NAME.npz` has the labels of the shard NAME, `DIR/labels.json` what they share: the
teacher and its classes. A label shard is read with `numpy.load` and has, for n images
in the shard's order and the k most probable of K classes,

- `keys`: uint64 `[n]`, see `train.data.shards.image_keys`;
- `classes`: uint16 `[k, n]`, the most probable ones first;
- `log_probs`: float16 `[k, n]`, their log probabilities; NaN for an unreadable image;
- `header`: JSON, UTF-8 bytes: the shard's name and digest, the teacher's digest, and
  the unreadable images.

The rest of the probability is spread evenly over the other classes. With k = 8 that is
40 bytes per image. Log probabilities are float16 because near 1, where confident images
are ranked, they are finer than a probability in float32.

A label shard is written whole and renamed, so that one that exists is complete.
"""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_flax.weights.errors import reason_of
from cnn_flax.weights.fields import wrong_field
from cnn_flax.weights.unpacking import read_arrays
from train.errors import UserError
from train.storage import create_file, read_json, replacement, storing

__all__ = [
    "FOLDER_FORMAT",
    "LabelShard",
    "check_label_shard",
    "dense_probabilities",
    "label_path",
    "open_folder",
    "read_folder",
    "read_label_header",
    "read_label_shard",
    "write_label_shard",
]

FOLDER_FORMAT = "label shards 1"

_HEADER = "labels.json"
_FOLDER_FIELDS = {
    **dict.fromkeys(("format", "run", "teacher"), str),
    **dict.fromkeys(("step", "top"), int),
    "class_names": [str],
}
_SHARD_FIELDS = {
    **dict.fromkeys(("top", "images", "classes"), int),
    **dict.fromkeys(("digest", "teacher"), str),
    "unreadable": dict,
}
_DTYPES = {"keys": "<u8", "classes": "<u2", "log_probs": "<f2"}
_ROUNDING = 0.02  # Of a sum of probabilities whose logarithms are float16.
# What the label shards of a folder have in common.
_TEACHER = ("teacher", "top", "classes")


@dataclass(frozen=True)
class LabelShard:
    """The labels of one shard.

    Attributes:
      keys: uint64 `[n]`.
      classes: uint16 `[k, n]`, the most probable ones first.
      log_probs: float16 `[k, n]`; NaN in the columns of unreadable images.
      header: `shard`, `digest`, `images`, `teacher`, `top` (k), `classes` (K), and
        `unreadable`: name and reason by the image's number.
    """

    keys: np.ndarray
    classes: np.ndarray
    log_probs: np.ndarray
    header: Mapping[str, Any]


def label_path(folder: Path, name: str) -> Path:
    """Path of the labels of the shard of this name."""
    return folder / f"{name}.npz"


def read_folder(folder: Path) -> dict[str, Any]:
    """The contents of `DIR/labels.json`.

    Raises:
      UserError: if it does not exist, or is something else.
    """
    try:
        header = read_json(folder / _HEADER, _FOLDER_FIELDS)
        if header is not None and header["format"] == FOLDER_FORMAT:
            return header
    except (OSError, UserError):
        pass
    raise UserError(
        f"{folder} is not a folder of label shards: it has no {_HEADER} of "
        "`pseudo-label --data shards:...`."
    )


def open_folder(folder: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """Creates a folder of label shards, or checks that it is by the same teacher.

    Of workers that start together, one creates the folder; the others check theirs
    against it.

    Returns:
      The contents of `DIR/labels.json`.

    Raises:
      UserError: if it is by another teacher or something else, or cannot be written.
      StorageError: if the disk is full.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: label shards need a folder of their own.")
    if not (folder / _HEADER).exists():
        text = json.dumps({"format": FOLDER_FORMAT, **header}, indent=2) + "\n"
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            create_file(folder / _HEADER, text)
    existing = read_folder(folder)
    if existing["teacher"] != header["teacher"]:
        raise UserError(
            f"{folder} has labels by another teacher: {_teacher(existing)} there, "
            f"{_teacher(header)} here. Choose another --out."
        )
    if existing["top"] != header["top"]:
        raise UserError(
            f"{folder} has the {existing['top']} most probable classes of each image, "
            f"not {header['top']}: choose the same --top, or another --out."
        )
    return existing


def write_label_shard(path: Path, labels: LabelShard) -> None:
    """Writes a label shard: all of it or nothing.

    Raises:
      UserError: if it cannot be written.
      StorageError: if the disk is full.
    """
    text = json.dumps(labels.header).encode()
    stream = io.BytesIO()
    np.savez(
        stream,
        **{name: getattr(labels, name).astype(t) for name, t in _DTYPES.items()},
        header=np.frombuffer(text, np.uint8),
    )
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement(path) as new, open(new, "wb") as file:
            file.write(stream.getbuffer())
            file.flush()
            os.fsync(file.fileno())


def read_label_header(path: Path) -> dict[str, Any]:
    """Reads the header of a label shard, and no labels.

    Raises:
      UserError: if it does not exist or is damaged.
    """
    with _reading(path) as read:
        return _header(read("header"))


def read_label_shard(path: Path) -> LabelShard:
    """Reads and checks a label shard.

    Raises:
      UserError: if it does not exist, is damaged, or its labels are not what they
        should be: in range, finite and in falling order of probability.
    """
    with _reading(path) as read:
        header = _header(read("header"))
        arrays = read(*_DTYPES)
        shape = (header["top"], header["images"])
        shapes = {"keys": shape[1:], "classes": shape, "log_probs": shape}
        for name, dtype in _DTYPES.items():
            array = arrays[name]
            if array.shape != shapes[name] or array.dtype != np.dtype(dtype):
                raise ValueError(f"{name} is {array.dtype} {list(array.shape)}")
        _check_values(arrays["classes"], arrays["log_probs"], header["classes"])
    return LabelShard(**arrays, header=header)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Callable[..., dict[str, np.ndarray]]]:
    """A function that reads arrays of a label shard by their names.

    Raises:
      UserError: for whatever zipfile, NumPy and the checks raise within the context.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        with open(path, "rb") as stream:
            yield lambda *names: read_arrays(stream, names)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; `pseudo-label` writes it.") from None
    except Exception as error:
        raise UserError(
            f"{path} is not a label shard, or is damaged ({reason_of(error)}): remove "
            "it, and `pseudo-label` labels its shard again."
        ) from error


def _header(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    header = json.loads(arrays["header"].tobytes())
    if wrong := wrong_field(header, _SHARD_FIELDS):
        raise ValueError(wrong)
    return header


def _check_values(classes: np.ndarray, log_probs: np.ndarray, count: int) -> None:
    if count > 2 ** (8 * classes.itemsize):
        raise ValueError(f"{count:,} classes are too many for their numbers"[:80])
    if classes.size and classes.max() >= count:
        raise ValueError(f"class {classes.max()} of {count}")
    readable = ~np.isnan(log_probs[0])
    if not np.isnan(log_probs[:, ~readable]).all():
        raise ValueError("log_probs are partly NaN")
    values = log_probs[:, readable]
    if not np.isfinite(values).all() or (values > 0).any():
        raise ValueError("log_probs are not finite or above 0")
    if (np.exp(values.astype(np.float32)).sum(axis=0) > 1 + _ROUNDING).any():
        raise ValueError("log_probs are of probabilities that sum to more than 1")
    if (values[1:] > values[:-1]).any():
        raise ValueError("log_probs are not in falling order")


def check_label_shard(
    path: Path, header: Mapping[str, Any], expected: Mapping[str, Any], shard: Path
) -> None:
    """Raises `UserError` if labels are by another teacher or of another shard.

    Args:
      path: the label shard.
      header: its header.
      expected: the folder's header, with the `digest` of the shard.
      shard: path of the shard.
    """
    if header["digest"] != expected["digest"]:
        raise UserError(
            f"{path} has labels of another {shard}: digest {header['digest'][:8]} "
            f"there, {expected['digest'][:8]} here. Remove it to label the shard "
            "again, or restore the shard."
        )
    for name in _TEACHER:
        count = expected[name] if name != "classes" else len(expected["class_names"])
        if header[name] != count:
            raise UserError(
                f"{path} has labels by another teacher than its folder says: remove it "
                "to label its shard again."
            )


def dense_probabilities(
    classes: np.ndarray, log_probs: np.ndarray, count: int
) -> np.ndarray:
    """The probabilities of all classes, with the rest spread evenly.

    Args:
      classes: `[k, n]`.
      log_probs: `[k, n]`; NaN gives NaN.
      count: number of classes K.

    Returns:
      float32 `[n, K]`, rows of sum 1.
    """
    top = np.exp(log_probs.astype(np.float32))
    # Rounded to float16, the sum may be slightly above 1; without a rest it must be 1.
    total = top.sum(axis=0)
    others = count - len(classes)
    scale = total if others == 0 else np.maximum(total, 1)
    rest = (1 - total / scale) / max(others, 1)
    dense = np.repeat(rest[:, None], count, axis=1).astype(np.float32)
    np.put_along_axis(dense, classes.T.astype(np.int64), (top / scale).T, axis=1)
    return dense


def _teacher(header: Mapping[str, Any]) -> str:
    return f"step {header['step']} of {header['run']}{' (EMA)' * header['ema']}"
