"""Files of pseudo-labels, and the selection of those to train on.

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
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cnn_flax.weights.errors import name_of, reason_of
from cnn_flax.weights.fields import wrong_field
from train.data import Source
from train.errors import UserError
from train.storage import (
    allocate,
    map_array,
    read_json,
    remove_abandoned,
    storing,
    try_lock,
    write_json,
)

__all__ = [
    "FORMAT",
    "PseudoLabelKind",
    "PseudoLabels",
    "PseudoLabelsWriter",
    "SelectedPseudoLabels",
    "check_class_names",
    "check_images",
    "header_path",
    "images_digest",
    "predictions",
    "pseudo_labelled",
    "read_header",
    "read_pseudo_labels",
    "select_pseudo_labels",
]

PseudoLabelKind = Literal["soft", "hard"]
FORMAT = "pseudo-labels 1"

# What a header has, besides what only people read.
_FIELDS = {
    **dict.fromkeys(("run", "teacher", "data", "digest"), str),
    **dict.fromkeys(("step", "images", "labelled"), int),
    "ema": bool,
    "class_names": [str],
    "unreadable": dict,
}
_OPTIONAL = {"versions": dict, "machine": dict}

_ROUNDING = 1e-3  # Of a sum of probabilities.
_CHUNK_ROWS = 2**16  # Rows in memory at a time.
_NAMED_CLASSES = 5  # Class names in a message.


@dataclass(frozen=True)
class PseudoLabels:
    """The contents of a file of pseudo-labels.

    Attributes:
      probabilities: float32 `[n, K]`, memory-mapped; NaN in the rows of unreadable
        images.
      readable: which images could be read, bool `[n]`.
      header: the contents of `FILE.json`.
    """

    probabilities: np.ndarray
    readable: np.ndarray
    header: dict[str, Any]


@dataclass(frozen=True)
class SelectedPseudoLabels:
    """The images to train on, and their labels.

    Attributes:
      indices: indices of the images in their source, sorted, int64 `[m]`; those of
        duplicated images are repeated.
      labels: probabilities, float32 `[m, K]`, or classes, int32 `[m]`.
    """

    indices: np.ndarray
    labels: np.ndarray


def header_path(path: Path) -> Path:
    """Path of the header of a file of pseudo-labels."""
    return path.with_name(f"{path.name}.json")


def read_header(path: Path) -> dict[str, Any] | None:
    """Reads `FILE.json`; None if neither it nor the file exists.

    Raises:
      UserError: if only one of them exists, or they are something else.
    """
    header_file = header_path(path)
    if not path.exists() and not header_file.exists():
        return None
    try:
        header = read_json(header_file, {"format": str})
    except UserError:
        header = None
    if header is None or header["format"] != FORMAT:
        raise UserError(
            f"{path} is not a file of pseudo-labels: {header_file.name} is not its "
            "header."
        )
    wrong = (
        wrong_field(header, _FIELDS)
        or wrong_field(header, _OPTIONAL, whole=False)
        or _wrong_images(header)
    )
    if wrong:
        raise UserError(f"{header_file} is damaged: {wrong}.")
    return header


def _wrong_images(header: Mapping[str, Any]) -> str:
    """What is wrong with the images that a header lists; "" if nothing is."""
    images, names = header["images"], header["class_names"]
    if header["labelled"] > images or not names:
        return "it has labelled more images than there are, or has no class"
    for index, item in header["unreadable"].items():
        is_image = index.isascii() and index.isdecimal() and len(index) < 20
        is_text = isinstance(item, list) and [type(x) for x in item] == [str, str]
        if not is_image or int(index) >= images or not is_text:
            return f"it lists {name_of(index)}, which is no image of it, as unreadable"
    return ""


def read_pseudo_labels(path: Path) -> PseudoLabels:
    """Memory-maps a file that `python -m train pseudo-label` wrote.

    Raises:
      UserError: if it does not exist, is not finished, or is something else.
    """
    header = read_header(path)
    if header is None:
        raise UserError(f"There is no file {path}; `pseudo-label` writes one.")
    images, labelled = header["images"], header["labelled"]
    if labelled < images:
        raise UserError(
            f"{path} is not finished: {labelled:,} of {images:,} images are labelled. "
            "The command that began it resumes it."
        )
    try:
        probabilities = map_array(path)
    except Exception as error:  # On a damaged header NumPy raises nearly anything.
        raise UserError(f"{path} cannot be read: {reason_of(error)}.") from error
    shape = (images, len(header["class_names"]))
    if probabilities.shape != shape or probabilities.dtype != np.float32:
        raise UserError(
            f"{path} is {probabilities.dtype} {list(probabilities.shape)}, but its "
            f"header says float32 {list(shape)}."
        )
    wrong = _wrong_rows(probabilities)
    if wrong:
        raise UserError(f"{path} has no probabilities: {wrong}. It may be damaged.")
    readable = np.ones(images, bool)
    readable[[int(index) for index in header["unreadable"]]] = False
    return PseudoLabels(probabilities, readable, header)


def _wrong_rows(probabilities: np.ndarray) -> str:
    """Says which row holds no probabilities, and is not all NaN; "" if none is."""
    for rows in _chunks(len(probabilities)):
        chunk = np.asarray(probabilities[rows])
        with np.errstate(invalid="ignore", over="ignore"):
            sums = chunk.sum(axis=1, dtype=np.float64)
        least, largest = chunk.min(axis=1), chunk.max(axis=1)
        good = (least >= 0) & (largest <= 1 + _ROUNDING) & (abs(sums - 1) <= _ROUNDING)
        bad = np.flatnonzero(~good)
        bad = bad[~np.isnan(chunk[bad]).all(axis=1)]
        if bad.size:
            i = int(bad[0])
            return (
                f"row {rows.start + i:,} has values from {least[i]:g} to "
                f"{largest[i]:g} and the sum {sums[i]:g}"
            )
    return ""


class PseudoLabelsWriter:
    """Writes a file of pseudo-labels image by image; an interrupted one is resumed.

    A context manager: it locks the file against other processes.

    Attributes:
      header: the current contents of `FILE.json`.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Creates the file, and its folder if needed, or resumes it.

        Args:
          path: the file.
          header: the teacher's and the images' entries of its header.

        Raises:
          UserError: if the file is something else, has labels by another teacher or of
            other images, is being written by another process, or cannot be written.
          StorageError: if the disk is full.
        """
        self._path = path
        new = {**header, "labelled": 0, "unreadable": {}}
        existing = read_header(path)
        if existing is not None:
            _check_same(path, existing, new)
        with contextlib.ExitStack() as stack:
            with storing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                if existing is None:  # First, so that no file is without a header.
                    write_json(header_path(path), new)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                self._file = stack.enter_context(open(descriptor, "r+b"))
            if not try_lock(self._file):
                raise UserError(
                    f"{path} is being written by another process: stop it first, or "
                    "choose another --out."
                )
            # Read again: until now another process may have written it.
            self.header = read_header(path) or new
            with storing(path):
                remove_abandoned(header_path(path))
                self._allocate(new)
            stack.pop_all()

    def __enter__(self) -> "PseudoLabelsWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @property
    def labelled(self) -> int:
        """Number of images whose labels have been written."""
        return self.header["labelled"]

    def append(
        self, probabilities: np.ndarray, unreadable: Mapping[int, tuple[str, str]]
    ) -> None:
        """Appends the labels of the next images.

        Args:
          probabilities: float32 `[m, K]`.
          unreadable: name and reason of each unreadable image, by index; its row
            becomes NaN.

        Raises:
          StorageError: if the disk is full; the labels appended before are safe.
        """
        rows = np.array(probabilities, np.float32)
        rows[np.asarray(list(unreadable), int) - self.labelled] = np.nan
        new_unreadable = {str(index): list(item) for index, item in unreadable.items()}
        header = {
            **self.header,
            "labelled": self.labelled + len(rows),
            "unreadable": {**self.header["unreadable"], **new_unreadable},
        }
        with storing(self._path):
            self._file.seek(self._start + self.labelled * self._row_bytes)
            self._file.write(rows.data)
            self._file.flush()
            os.fsync(self._file.fileno())
            write_json(header_path(self._path), header)
        self.header = header

    def _allocate(self, new: dict[str, Any]) -> None:
        """Writes NumPy's header, and allocates the disk space of all rows."""
        shape = (new["images"], len(new["class_names"]))
        dtype = np.dtype(np.float32)
        fields = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        old_size = os.fstat(self._file.fileno()).st_size
        np.lib.format.write_array_header_1_0(self._file, fields)
        self._start, self._row_bytes = self._file.tell(), shape[1] * dtype.itemsize
        size = self._start + shape[0] * self._row_bytes
        if old_size < size and self.labelled:  # The labels have been lost.
            self.header = new
            write_json(header_path(self._path), new)
        allocate(self._file, size)


def _check_same(
    path: Path, existing: Mapping[str, Any], new: Mapping[str, Any]
) -> None:
    """Raises `UserError` if a file is by another teacher or of other images."""
    for name, difference, describe in (
        ("teacher", "by another teacher", _describe_teacher),
        ("digest", "of other images", _describe_images),
    ):
        if existing[name] != new[name]:
            raise UserError(
                f"{path} has labels {difference}: {describe(existing)} there, "
                f"{describe(new)} here. Choose another --out."
            )


def _describe_teacher(header: Mapping[str, Any]) -> str:
    return f"step {header['step']} of {header['run']}{' (EMA)' * header['ema']}"


def _describe_images(header: Mapping[str, Any]) -> str:
    # The digest tells apart two parts of one source.
    digest = header["digest"][:8]
    return f"{header['images']:,} of {header['data']} (digest {digest})"


def images_digest(source: Source) -> str:
    """A hash that identifies a set of images: of their names, in order.

    Moving a folder does not change its digest. The names of images in memory are only
    numbers, so their pixels are hashed too.
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
    """Raises `UserError` if the labels are of other images."""
    header = labels.header
    if header["images"] != len(source):
        reason = f"{header['images']:,} images there, {len(source):,} here"
    elif header["digest"] != images_digest(source):
        reason = "the same number, but other images or another order"
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
    """Selects images by their pseudo-labels, which replace the labels.

    Args:
      path: the file of pseudo-labels.
      source: the images that it labels.
      class_names: the classes that the labels must have; None allows any.
      min_confidence: see `select_pseudo_labels`.
      per_class: see `select_pseudo_labels`.
      kind: see `select_pseudo_labels`.
      seed: see `select_pseudo_labels`.

    Raises:
      UserError: if the file is of other images or classes, or no image is selected.
    """
    labels = read_pseudo_labels(path)
    check_images(path, labels, source)
    check_class_names(path, labels.header["class_names"], class_names)
    selected = select_pseudo_labels(
        labels.probabilities,
        min_confidence=min_confidence,
        per_class=per_class,
        kind=kind,
        seed=seed,
    )
    return source.take(selected.indices).with_columns(label=selected.labels)


def check_class_names(
    path: Path, labelled: Sequence[str], class_names: Sequence[str] | None
) -> None:
    """Raises `UserError` if labels are of other classes; None allows any."""
    if class_names is not None and list(class_names) != list(labelled):
        raise UserError(
            f"{path} has labels of other classes: {_abbreviate(labelled)} there, "
            f"{_abbreviate(class_names)} here."
        )


def _abbreviate(names: Sequence[str]) -> str:
    more = f" ... ({len(names)})" if len(names) > _NAMED_CLASSES else ""
    return ", ".join(names[:_NAMED_CLASSES]) + more


def predictions(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most probable class of each image, and its probability.

    Args:
      probabilities: float32 `[n, K]`; read in chunks.

    Returns:
      Classes int32 `[n]` and confidences float32 `[n]`; 0 and NaN if a row is NaN.
    """
    classes = np.empty(len(probabilities), np.int32)
    confidences = np.empty(len(probabilities), np.float32)
    for rows in _chunks(len(probabilities)):
        chunk = np.asarray(probabilities[rows])
        classes[rows] = chunk.argmax(axis=1)
        confidences[rows] = chunk.max(axis=1)
    return classes, confidences


def select_pseudo_labels(
    probabilities: np.ndarray,
    *,
    min_confidence: float = 0.0,
    per_class: int = 0,
    kind: PseudoLabelKind = "soft",
    seed: int = 0,
) -> SelectedPseudoLabels:
    """Filters images by confidence, then balances the classes.

    Xie et al. 2019, "Self-training with Noisy Student improves ImageNet
    classification", https://arxiv.org/abs/1911.04252, section 3.1, "Data filtering and
    balancing": a confidence above 0.3; the 130,000 most confident images per class, and
    random duplicates in classes with fewer.

    Here each image of a class with m < `per_class` images is repeated `per_class // m`
    times, and a random choice of them once more. A class without images stays empty.

    Args:
      probabilities: float32 `[n, K]`; NaN rows are left out.
      min_confidence: images are kept if their largest probability is above this.
      per_class: images per most probable class; 0 does not balance the classes.
      kind: `soft` gives the probabilities, `hard` the most probable classes.
      seed: seed of the random duplicates.

    Returns:
      The selected images, in the source's order. Of equal confidences, the lower index
      comes first, so that the same probabilities give the same selection.

    Raises:
      UserError: if no image is left.
    """
    classes, confidences = predictions(probabilities)
    kept = np.flatnonzero(confidences > min_confidence)  # NaN is not.
    if not kept.size:
        largest = np.max(confidences, initial=0, where=~np.isnan(confidences))
        raise UserError(
            f"No image has a confidence above {min_confidence:g}: the largest of "
            f"{len(confidences):,} is {largest:.4f}. Lower --min-confidence."
        )
    if per_class:
        # By class, the most confident first; of equal ones, the lower index.
        order = kept[np.lexsort((-confidences[kept], classes[kept]))]
        starts = np.flatnonzero(np.diff(classes[order])) + 1
        members = np.split(order, starts)
        kept = np.sort(np.concatenate([_fill(m, per_class, seed) for m in members]))
    labels = classes[kept] if kind == "hard" else np.asarray(probabilities[kept])
    return SelectedPseudoLabels(kept, labels)


def _fill(members: np.ndarray, quota: int, seed: int) -> np.ndarray:
    """The first `quota` of a class's images, repeated if there are fewer."""
    members = members[:quota]
    times, rest = divmod(quota, len(members))
    rng = np.random.default_rng([seed, len(members), int(members[0])])
    return np.concatenate([np.repeat(members, times), rng.permutation(members)[:rest]])


def _chunks(count: int) -> Iterator[slice]:
    return (slice(i, i + _CHUNK_ROWS) for i in range(0, count, _CHUNK_ROWS))
