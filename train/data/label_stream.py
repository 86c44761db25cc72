"""Training images from shards, with the labels and the choice of label shards.

An epoch is a random order of the shards, in windows of a few; the chosen images of a
window are in random order. What is in memory is one number per shard and the indices
and labels of the few shards that are open, never one number per image. The order is a
function of the seed, the epoch and the position, so that a step number resumes it.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from train.data.decode import Pixels, TargetSide, decode_image
from train.data.label_choice import Choice, TopClasses, choose
from train.data.label_shards import (
    check_label_shard,
    dense_probabilities,
    label_path,
    read_folder,
    read_label_header,
    read_label_shard,
)
from train.data.pseudo_label_file import check_class_names
from train.data.shard_readers import ShardReader, open_shard
from train.data.shards import Shards, image_keys, shard_digest
from train.data.source import Source, SourceError
from train.errors import UserError

__all__ = ["shard_labelled"]

_WINDOW = 16  # Shards whose images are shuffled together.
_OPEN = 2 * _WINDOW  # Two windows, as images are read ahead.
_DIGEST_THREADS = 16


def shard_labelled(
    folder: Path,
    shards: Shards,
    *,
    class_names: Sequence[str] | None = None,
    min_confidence: float = 0.0,
    per_class: int = 0,
    kind: str = "soft",
) -> Source:
    """The images of shards, chosen and labelled by label shards.

    Args:
      folder: the folder of label shards.
      shards: the shards; each must have labels.
      class_names: the classes that the labels must have; None allows any.
      min_confidence: see `train.data.label_choice.choose`.
      per_class: see `train.data.label_choice.choose`.
      kind: `soft` or `hard`.

    Raises:
      UserError: if a shard has no labels, or those of another shard or other classes,
        or no image is chosen.
    """
    header = read_folder(folder)
    names = header["class_names"]
    check_class_names(folder, names, class_names)
    missing = [n for n in shards.names if not label_path(folder, n).exists()]
    if missing:
        raise UserError(
            f"{folder} has no labels of {len(missing):,} of {len(shards):,} shards, "
            f"such as {missing[0]}. The command that labels them resumes."
        )
    identity = _identity(folder, shards, header)

    def tops() -> Iterator[TopClasses]:
        for name in shards.names:
            labels = read_label_shard(label_path(folder, name))
            yield TopClasses(labels.classes[0], labels.log_probs[0])

    choice = choose(
        tops, len(names), min_confidence=min_confidence, per_class=per_class
    )
    images = _ChosenImages(folder, shards, choice)
    label = _Labels(images, len(names), kind)
    size = len(images)
    return Source(
        shards.spec,
        (),
        size,
        example=images.example,
        name=images.name,
        find_labels=lambda: np.full(size, -1, np.int32),
        channels=3,
        native_size=None,
        columns={"label": label},
        order=images.order,
        digest=identity,
    )


def _identity(folder: Path, shards: Shards, header: dict[str, Any]) -> str:
    """A hash of what the order depends on; checks that labels are of these shards.

    It is of `top` and of each shard's name, digest and unreadable images.

    Raises:
      UserError: if labels are of other shards or by another teacher.
    """

    def check(name: str) -> str:
        path = label_path(folder, name)
        digest = shard_digest(shards.path(name))
        labels = read_label_header(path)
        check_label_shard(path, labels, {**header, "digest": digest}, shards.path(name))
        return json.dumps([name, digest, list(labels["unreadable"])])

    identity = hashlib.sha256(str(header["top"]).encode())
    with ThreadPoolExecutor(_DIGEST_THREADS) as pool:
        for line in pool.map(check, shards.names):
            identity.update(line.encode())
    return identity.hexdigest()


class _OpenShard(NamedTuple):
    """A shard in use.

    Attributes:
      reader: reads its images.
      rows: numbers of its chosen images, repeated ones included.
      classes: uint16 `[k, n]`.
      log_probs: float16 `[k, n]`.
    """

    reader: ShardReader
    rows: np.ndarray
    classes: np.ndarray
    log_probs: np.ndarray


class _ChosenImages:
    """The chosen images of all shards, numbered shard by shard."""

    def __init__(self, folder: Path, shards: Shards, choice: Choice) -> None:
        self._folder, self._shards, self._choice = folder, shards, choice
        self._starts = np.concatenate([[0], np.cumsum(choice.counts)])
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._lock = threading.Lock()
        self._opening: dict[int, threading.Lock] = {}
        self.order = lru_cache(4)(self._order)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def place(self, index: int) -> tuple[_OpenShard, int, int]:
        """An image's shard, its number there, and the shard's number."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        shard = self._shard(number)
        return shard, int(shard.rows[index - int(self._starts[number])]), number

    def example(self, index: int, target_side: TargetSide) -> tuple[Pixels, int]:
        shard, row, number = self.place(index)
        name = self._name(shard, row, number)
        return decode_image(shard.reader.read(row), name, target_side), -1

    def name(self, index: int) -> str:
        return self._name(*self.place(index))

    def _name(self, shard: _OpenShard, row: int, number: int) -> str:
        path = self._shards.path(self._shards.names[number])
        return f"{path}[{shard.reader.names[row]}]"

    def _order(self, seed: int, epoch: int) -> "_Order":
        return _Order(self._choice.counts, self._starts, seed, epoch)

    def _shard(self, number: int) -> _OpenShard:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
            opening = self._opening.setdefault(number, threading.Lock())
        with opening:  # Other threads read other shards meanwhile.
            with self._lock:
                if number in self._open:
                    return self._open[number]
            shard = self._read(number)
            with self._lock:
                self._open[number] = shard
                self._opening.pop(number, None)
                while len(self._open) > _OPEN:
                    self._open.popitem(last=False)
        return shard

    def _read(self, number: int) -> _OpenShard:
        name = self._shards.names[number]
        path = self._shards.path(name)
        labels = read_label_shard(label_path(self._folder, name))
        reader = open_shard(path)
        if not np.array_equal(image_keys(reader.names), labels.keys):
            raise SourceError(
                f"{path} has other images, or another order, than when it was labelled"
            )
        top = TopClasses(labels.classes[0], labels.log_probs[0])
        copies = self._choice.copies(number, top)
        rows = np.repeat(np.arange(len(copies), dtype=np.int32), copies)
        return _OpenShard(reader, rows, labels.classes, labels.log_probs)


class _Order:
    """The order of an epoch: from positions to the numbers of chosen images."""

    def __init__(
        self, counts: np.ndarray, starts: np.ndarray, seed: int, epoch: int
    ) -> None:
        self._counts, self._starts, self._seed = counts, starts, [seed, epoch]
        shuffled = np.random.default_rng(self._seed).permutation(len(counts))
        self._shards = shuffled
        sums = np.concatenate([[0], np.cumsum(counts[shuffled])])
        self._bounds = np.append(sums[:-1:_WINDOW], sums[-1])
        self._window = lru_cache(2)(self._permuted)

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        windows = np.searchsorted(self._bounds, positions, side="right") - 1
        indices = np.empty(len(positions), np.int64)
        for window in np.unique(windows):
            here = windows == window
            offsets = positions[here] - self._bounds[window]
            indices[here] = self._window(int(window))[offsets]
        return indices

    def _permuted(self, window: int) -> np.ndarray:
        """The images of a window's shards, in random order."""
        shards = self._shards[window * _WINDOW : (window + 1) * _WINDOW]
        images = [np.arange(int(self._counts[s])) + self._starts[s] for s in shards]
        rng = np.random.default_rng([*self._seed, window])
        return rng.permutation(np.concatenate(images))


class _Labels:
    """The labels of the chosen images, as an array whose rows are read when needed."""

    def __init__(self, images: _ChosenImages, classes: int, kind: str) -> None:
        self._images, self._classes, self._kind = images, classes, kind
        hard = kind == "hard"
        self.shape = (len(images),) if hard else (len(images), classes)
        self.dtype = np.dtype(np.int32 if hard else np.float32)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        places = [self._images.place(int(index))[:2] for index in indices]
        if self._kind == "hard":
            return np.asarray([s.classes[0, row] for s, row in places], np.int32)
        classes = np.stack([s.classes[:, row] for s, row in places], axis=1)
        log_probs = np.stack([s.log_probs[:, row] for s, row in places], axis=1)
        return dense_probabilities(classes, log_probs, self._classes)
