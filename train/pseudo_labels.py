"""Labels that a model gave to images: the file that holds them, and which are used.

The file is NumPy's own, `numpy.load(FILE, mmap_mode="r")`: float32 `[n, K]`, the
probabilities of the K classes for each of n images in their source's order, NaN where
an image cannot be read. An image's class is the largest, its confidence how large that
is. Float16 would be half the size, but near 1, where the most confident of a class are
told apart, its numbers are 0.0005 apart.

`FILE.json` beside it says what they are: the run that gave them and its step, the
images, the classes, and which images cannot be read.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from train.data import Source
from train.errors import UserError

__all__ = [
    "FORMAT",
    "Chosen",
    "PseudoLabelKind",
    "PseudoLabels",
    "check_images",
    "choose",
    "header_path",
    "images_digest",
    "predictions",
    "read_header",
    "read_pseudo_labels",
]

PseudoLabelKind = Literal["soft", "hard"]
FORMAT = "pseudo-labels 1"

_ROWS = 2**16  # That are looked at together.


@dataclass(frozen=True)
class PseudoLabels:
    """What a file holds.

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
    beside = header_path(path)
    if not path.exists() and not beside.exists():
        return None
    try:
        header = json.loads(beside.read_text("utf-8"))
        if header["format"] == FORMAT:
            return header
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is no file of pseudo-labels ({beside.name} says so not).")


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
