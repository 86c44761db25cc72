"""The file of pseudo-labels, and the choice of those that are learned from.

The file is a NumPy array, `numpy.load(FILE, mmap_mode="r")`: float32 `[n, K]`, the
probabilities of the K classes for each of n images in their source's order, NaN for an
image that cannot be read. An image's class is the most probable one, its confidence the
probability of that class. Float16 would be half the size, but near 1, where the most
confident images of a class are ranked, its values are 0.0005 apart.

`FILE.json` is its header: the run that labelled the images and its step, the images,
the classes, and which images cannot be read.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from train.data import Source
from train.errors import StorageError, UserError
from train.storage import DISK_FULL, allocate, try_lock, write_json

__all__ = [
    "FORMAT",
    "Chosen",
    "PseudoLabelKind",
    "PseudoLabels",
    "PseudoLabelsWriter",
    "check_images",
    "choose",
    "header_path",
    "images_digest",
    "predictions",
    "pseudo_labelled",
    "read_header",
    "read_pseudo_labels",
]

PseudoLabelKind = Literal["soft", "hard"]
FORMAT = "pseudo-labels 1"

_ROWS = 2**16  # That are looked at together.
_NAMED = 5  # How many classes a message names.


@dataclass(frozen=True)
class PseudoLabels:
    """The contents of a file of pseudo-labels.

    Attributes:
      probabilities: float32 `[n, K]`, on disk; NaN in the rows of unreadable images.
      readable: which images could be read, bool `[n]`.
      header: what `FILE.json` says.
    """

    probabilities: np.ndarray
    readable: np.ndarray
    header: dict[str, Any]


@dataclass(frozen=True)
class Chosen:
    """The images to train on, and their labels.

    Attributes:
      indices: of the images in their source, rising, int64 `[m]`; an image that is
        duplicated is there more than once.
      labels: probabilities, float32 `[m, K]`, or classes, int32 `[m]`.
    """

    indices: np.ndarray
    labels: np.ndarray


def header_path(path: Path) -> Path:
    """Where the header of a file of pseudo-labels is."""
    return path.with_name(f"{path.name}.json")


def read_header(path: Path) -> dict[str, Any] | None:
    """What `FILE.json` says, or None where neither is there.

    Raises:
      UserError: if what is there is something else.
    """
    header_file = header_path(path)
    if not path.exists() and not header_file.exists():
        return None
    try:
        header = json.loads(header_file.read_text("utf-8"))
        if header["format"] == FORMAT:
            return header
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(
        f"{path} is no file of pseudo-labels: {header_file.name} is not its header."
    )


def read_pseudo_labels(path: Path) -> PseudoLabels:
    """Opens a file that `python -m train pseudo-label` wrote; it stays on disk.

    Raises:
      UserError: if it is not there, not finished, or something else.
    """
    header = read_header(path)
    if header is None:
        raise UserError(f"There is no file {path}; `pseudo-label` writes one.")
    images, labelled = header["images"], header["labelled"]
    if labelled < images:
        raise UserError(
            f"{path} is not finished: {labelled:,} of {images:,} images are labelled. "
            "The command that began it goes on."
        )
    try:
        probabilities = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    shape = (images, len(header["class_names"]))
    if probabilities.shape != shape or probabilities.dtype != np.float32:
        raise UserError(
            f"{path} is {probabilities.dtype} {list(probabilities.shape)}, and its "
            f"header says float32 {list(shape)}."
        )
    readable = np.ones(images, bool)
    readable[[int(index) for index in header["unreadable"]]] = False
    return PseudoLabels(probabilities, readable, header)


class PseudoLabelsWriter:
    """Writes a file from its first image to its last, over any number of starts.

    A context: nobody else can write to the file inside it.

    Attributes:
      header: what `FILE.json` says so far.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Makes the file, or goes on with it; its folder is made if need be.

        Args:
          path: the file.
          header: what its header is to say of teacher and images.

        Raises:
          UserError: if the file is something else, of another teacher or of other
            images, or is being written, or cannot be.
          StorageError: if the disk has no room for it.
        """
        self._path = path
        new = {**header, "labelled": 0, "unreadable": {}}
        there = read_header(path)
        if there is not None:
            _check_same(path, there, new)
        with contextlib.ExitStack() as stack:
            with _storing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                if there is None:  # Before the file, which never is without it.
                    write_json(header_path(path), new)
                number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                self._file = stack.enter_context(open(number, "r+b"))
            if not try_lock(self._file):
                raise UserError(
                    f"{path} is being written by another process: end that one first, "
                    "or take another --out."
                )
            # As it is now that nobody else writes.
            self.header = read_header(path) or new
            with _storing(path):
                self._allocate(new)
            stack.pop_all()

    def __enter__(self) -> "PseudoLabelsWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @property
    def labelled(self) -> int:
        """Number of images whose labels are written."""
        return self.header["labelled"]

    def append(
        self, probabilities: np.ndarray, unreadable: Mapping[int, tuple[str, str]]
    ) -> None:
        """Adds the labels of the next images.

        Args:
          probabilities: float32 `[m, K]`.
          unreadable: from the index of each image that could not be read to its name
            and the reason; its row becomes NaN.

        Raises:
          StorageError: if the disk is full; the images before these are kept.
        """
        rows = np.array(probabilities, np.float32)
        rows[np.asarray(list(unreadable), int) - self.labelled] = np.nan
        known = {str(index): list(told) for index, told in unreadable.items()}
        header = {
            **self.header,
            "labelled": self.labelled + len(rows),
            "unreadable": {**self.header["unreadable"], **known},
        }
        with _storing(self._path):
            self._file.seek(self._start + self.labelled * self._row)
            self._file.write(rows.data)
            self._file.flush()
            os.fsync(self._file.fileno())
            write_json(header_path(self._path), header)
        self.header = header

    def _allocate(self, new: dict[str, Any]) -> None:
        """Gives the file its size: NumPy's header and all rows."""
        shape = (new["images"], len(new["class_names"]))
        kind = np.dtype(np.float32)
        fields = {"descr": kind.str, "fortran_order": False, "shape": shape}
        before = os.fstat(self._file.fileno()).st_size
        np.lib.format.write_array_header_1_0(self._file, fields)
        self._start, self._row = self._file.tell(), shape[1] * kind.itemsize
        size = shape[0] * self._row
        if before < self._start + size and self.labelled:  # They are there no more.
            self.header = new
            write_json(header_path(self._path), new)
        allocate(self._file, self._start + size)


def _check_same(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises `UserError` where a file is of another teacher or of other images."""
    for name, other, tell in (
        ("teacher", "by another teacher", _tell_teacher),
        ("digest", "of other images", _tell_images),
    ):
        if there[name] != here[name]:
            raise UserError(
                f"{path} has labels {other}: {tell(there)} there, {tell(here)} here. "
                "Take another --out."
            )


def _tell_teacher(header: Mapping[str, Any]) -> str:
    return f"step {header['step']} of {header['run']}{' (EMA)' * header['ema']}"


def _tell_images(header: Mapping[str, Any]) -> str:
    # Of one source there may be other parts, and files with other names.
    names = header["digest"][:8]
    return f"{header['images']:,} of {header['data']} (digest {names})"


@contextlib.contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = f"{path} cannot be written to: {error.strerror}."
        kind = StorageError if error.errno in DISK_FULL else UserError
        raise kind(problem) from error


def images_digest(source: Source) -> str:
    """What tells a set of images from others: by their names, in their order.

    A folder keeps its digest where it is moved. Of images in memory, whose names are
    only numbers, the pixels count too.
    """
    root = str(Path(source.spec.partition(":")[2]).expanduser())
    digest = hashlib.sha256()
    for index in range(len(source)):
        name = source.name(index).removeprefix(source.spec).removeprefix(root)
        digest.update(os.fsencode(name.lstrip("/")) + b"\0")
    if source.images is not None:
        digest.update(np.ascontiguousarray(source.images).data)
    return digest.hexdigest()


def check_images(path: Path, labels: PseudoLabels, source: Source) -> None:
    """Raises `UserError` where the labels are not of these images."""
    header = labels.header
    if header["images"] != len(source):
        reason = f"{header['images']:,} images there, {len(source):,} here"
    elif header["digest"] != images_digest(source):
        reason = "as many, but others, or in another order"
    else:
        return
    raise UserError(
        f"{path} has labels of other images ({header['data']}) than {source.spec}: "
        f"{reason}. The same source, split, seed and selection give the same images."
    )


def pseudo_labelled(
    path: Path,
    source: Source,
    *,
    class_names: Sequence[str] | None = None,
    min_confidence: float = 0.0,
    per_class: int = 0,
    kind: PseudoLabelKind = "soft",
    seed: int = 0,
) -> Source:
    """The images that are chosen by a file of pseudo-labels, with these as labels.

    Args:
      path: the file.
      source: the images that it is of.
      class_names: what the labels' classes must be; None allows any.
      min_confidence: see `choose`, as for the others.
      per_class: likewise.
      kind: likewise.
      seed: likewise.

    Raises:
      UserError: if the file is not of these images and classes, or none are chosen.
    """
    labels = read_pseudo_labels(path)
    check_images(path, labels, source)
    there = labels.header["class_names"]
    if class_names is not None and list(class_names) != there:
        raise UserError(
            f"{path} has labels of other classes: {_few(there)} there, "
            f"{_few(class_names)} here."
        )
    chosen = choose(
        labels.probabilities,
        min_confidence=min_confidence,
        per_class=per_class,
        kind=kind,
        seed=seed,
    )
    return source.take(chosen.indices).with_columns(label=chosen.labels)


def _few(names: Sequence[str]) -> str:
    more = f" ... ({len(names)})" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def predictions(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most probable class of each image, and its probability.

    Args:
      probabilities: float32 `[n, K]`; a few rows at a time are in memory.

    Returns:
      Classes int32 `[n]` and confidences float32 `[n]`; 0 and NaN where a row is NaN.
    """
    classes = np.empty(len(probabilities), np.int32)
    confidences = np.empty(len(probabilities), np.float32)
    for rows in _chunks(len(probabilities)):
        part = np.asarray(probabilities[rows])
        classes[rows] = part.argmax(axis=1)
        confidences[rows] = part.max(axis=1)
    return classes, confidences


def choose(
    probabilities: np.ndarray,
    *,
    min_confidence: float = 0.0,
    per_class: int = 0,
    kind: PseudoLabelKind = "soft",
    seed: int = 0,
) -> Chosen:
    """Filters images by confidence, then takes as many of each class.

    Xie et al. 2019, "Self-training with Noisy Student improves ImageNet
    classification", https://arxiv.org/abs/1911.04252, section 3.1, "Data filtering and
    balancing": a confidence above 0.3; of each class the 130,000 most confident, and
    duplicates, drawn at random, where there are fewer.

    Here each image of a class with fewer is there `per_class // m` times, m being their
    number, and some drawn by the seed once more. A class without any stays so.

    Args:
      probabilities: float32 `[n, K]`; NaN rows are left out.
      min_confidence: images are kept whose largest probability is above this.
      per_class: images of each class, by the most probable one; 0 keeps all as they
        are.
      kind: `soft` gives the probabilities, `hard` the most probable classes.
      seed: of the draw of what is duplicated.

    Returns:
      The chosen images, in the source's order. Equal confidences are told apart by the
      index, so that the same probabilities give the same choice.

    Raises:
      UserError: if no image is left.
    """
    classes, confidences = predictions(probabilities)
    kept = np.flatnonzero(confidences > min_confidence)  # NaN is not.
    if not kept.size:
        surest = np.max(confidences, initial=0, where=~np.isnan(confidences))
        raise UserError(
            f"No image has a confidence above {min_confidence:g}: the largest of "
            f"{len(confidences):,} is {surest:.4f}. Lower --min-confidence."
        )
    if per_class:
        # By class, the most confident first; of equal ones that with the lower index.
        order = kept[np.lexsort((-confidences[kept], classes[kept]))]
        starts = np.flatnonzero(np.diff(classes[order])) + 1
        drawn = [_fill(k, per_class, seed) for k in np.split(order, starts)]
        kept = np.sort(np.concatenate(drawn))
    labels = classes[kept] if kind == "hard" else np.asarray(probabilities[kept])
    return Chosen(kept, labels)


def _fill(members: np.ndarray, quota: int, seed: int) -> np.ndarray:
    """The first `quota` of a class's images, each as often as it takes to have them."""
    members = members[:quota]
    times, rest = divmod(quota, len(members))
    rng = np.random.default_rng([seed, len(members), int(members[0])])
    return np.concatenate([np.repeat(members, times), rng.permutation(members)[:rest]])


def _chunks(count: int) -> Iterator[slice]:
    return (slice(i, i + _ROWS) for i in range(0, count, _ROWS))
