"""A set of images, and how it is split and subsampled."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from cnn_flax.weights.errors import name_of
from train.data.decode import Pixels, TargetSide, to_array
from train.errors import UserError

__all__ = [
    "SPLIT_NAMES",
    "Rows",
    "Source",
    "SourceError",
    "Splits",
    "array_source",
    "cached",
    "check_classes",
    "check_labels",
    "repeat_to",
    "shuffled_classes",
    "split_name",
    "stratified_split",
    "subset",
]


# From the names that data sets give to splits to ours.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_CACHE_BYTES = 2**28  # The largest set that is cached.


def split_name(name: str) -> str | None:
    """Our name of the split that a data set calls `name`, in any case, or None."""
    return SPLIT_NAMES.get(name.lower())


class SourceError(UserError):
    """A set of images that cannot be used as asked."""


class Rows(Protocol):
    """A NumPy array `[n, ...]`, or what is indexed by images and has its shape."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        ...

    @property
    def dtype(self) -> Any:
        """The data type."""
        ...

    def __getitem__(self, indices: np.ndarray, /) -> np.ndarray:
        """The rows at the indices."""
        ...


@dataclass(frozen=True, eq=False)
class Source:
    """A set of images, each read when it is needed.

    Attributes:
      spec: what the user wrote, for messages.
      class_names: K names; label k is class `class_names[k]`. Empty if the images have
        no labels: every label is then -1.
      size: number of images.
      example: `(index, target_side)` -> image and label: pixels, each image in its own
        size, and an int in `[0, K)`. `target_side` is the short side that the image
        will be resized to, or 0, or a function that returns it: see
        `decode.decode_image`. Raises `DecodeError` if the image cannot be read.
      name: index -> the image's name in messages: a file, or for example `digits/17`.
      find_labels: returns all labels, `int32 [size]`; may have to read the whole set.
      channels: number of channels that most images have.
      native_size: `(h, w)` in pixels if all images have one size, else None.
      images: `uint8 [size, h, w, C]` if the whole set is in memory, else None.
      columns: further arrays `[size, ...]`, whose rows join the images in a batch under
        these names; `label` replaces the labels, by probabilities or classes.
      order: `(seed, epoch)` -> the order of an epoch: indexed by positions `[m]`, gives
        the images' indices; None for a permutation of the whole set.
      digest: identifies images that are not known by name before they are read.
      multi_label: whether an image has any number of the classes. The column `label`
        then has 1 for those of an image and 0 for others, float32 `[size, K]`, and
        there are no other labels.
    """

    spec: str
    class_names: tuple[str, ...]
    size: int
    example: Callable[[int, TargetSide], tuple[Pixels, int]]
    name: Callable[[int], str]
    find_labels: Callable[[], np.ndarray]
    channels: int
    native_size: tuple[int, int] | None
    images: np.ndarray | None = None
    columns: Mapping[str, Rows] = field(default_factory=dict)
    order: Callable[[int, int], Any] | None = None
    digest: str = ""
    multi_label: bool = False

    def __len__(self) -> int:
        return self.size

    def read(self, index: int) -> np.ndarray:
        """Image at `index`, `uint8 [h, w, C]`; may raise `DecodeError`."""
        return to_array(self.example(index, 0)[0])

    @cached_property
    def labels(self) -> np.ndarray:
        """All labels, `int32 [size]` in `[0, K)`, or -1 if the images have none.

        Raises:
          SourceError: if images have several.
        """
        if self.multi_label:
            raise SourceError(
                f"{self.spec} has several classes per image, and this needs one; "
                "--count and --share select images, --labels-per-class and --imbalance "
                "do not"
            )
        return self.find_labels()

    def strata(self) -> np.ndarray:
        """The groups that are split in the same proportion, `int [size]`.

        They are the classes, or one group if images have several.
        """
        return np.zeros(len(self), int) if self.multi_label else self.labels

    def take(self, indices: np.ndarray) -> "Source":
        """The set of the images at `indices`, in that order."""
        return Source(
            self.spec,
            self.class_names,
            len(indices),
            example=lambda i, target_side: self.example(int(indices[i]), target_side),
            name=lambda i: self.name(int(indices[i])),
            find_labels=lambda: self.labels[indices],
            channels=self.channels,
            native_size=self.native_size,
            images=None if self.images is None else self.images[indices],
            columns={name: rows[indices] for name, rows in self.columns.items()},
            multi_label=self.multi_label,
        )

    def with_columns(self, **columns: Rows) -> "Source":
        """The set with more columns; they replace columns of the same name."""
        return replace(self, columns={**self.columns, **columns})


# Split -> the function that opens it; a set without splits has `train` alone.
Splits = dict[str, Callable[[], Source]]


def array_source(
    spec: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    name: Callable[[int], str],
) -> Source:
    """A source whose images are in memory.

    Args:
      spec: what the user wrote, for messages.
      images: `uint8 [n, h, w, C]`.
      labels: integers `[n]` in `[0, K)`.
      class_names: K names.
      name: index -> the image's name in messages.

    Raises:
      SourceError: if the arrays do not match, or a label is out of range.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise SourceError(
            f"{spec}: images are {images.dtype} {list(images.shape)}; "
            "they must be uint8 [n, h, w, C] in [0, 255], with at least one"
        )
    if images.shape[1] <= 4 < images.shape[3]:
        raise SourceError(
            f"{spec}: images are {list(images.shape)}, which looks like [n, C, h, w]; "
            "they must be [n, h, w, C]: save images.transpose(0, 2, 3, 1)"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise SourceError(
            f"{spec}: labels are {labels.dtype} {list(labels.shape)}; "
            f"they must be integers [{len(images)}], one per image"
        )
    check_labels(spec, labels, len(class_names), name)
    labels = labels.astype(np.int32)
    return Source(
        spec,
        class_names,
        len(images),
        example=lambda i, target_side: (images[i], int(labels[i])),
        name=name,
        find_labels=lambda: labels,
        channels=images.shape[-1],
        native_size=images.shape[1:3],
        images=images,
    )


def check_labels(
    spec: str, labels: np.ndarray, classes: int, name: Callable[[int], str]
) -> None:
    """Raises `SourceError` at the first label outside `[0, classes)`."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        first = int(wrong[0])
        raise SourceError(
            f"{spec}: label {labels[first]} at image {first} ({name(first)}) is out of "
            f"range: the classes are 0 to {classes - 1}"
        )


def cached(source: Source) -> Source:
    """The same set; if it is small, images stay in memory once read.

    Small means at most 256 MiB of pixels at the images' common size; images of another
    size are not cached.
    """
    size = source.native_size
    if source.images is not None or size is None:
        return source
    if len(source) * size[0] * size[1] * source.channels > _CACHE_BYTES:
        return source
    cache: dict[int, tuple[np.ndarray, int]] = {}

    def example(index: int, target_side: TargetSide) -> tuple[np.ndarray, int]:
        if index in cache:
            return cache[index]
        image, label = source.example(index, target_side)
        pixels = to_array(image)
        if pixels.shape[:2] == size:
            cache[index] = pixels, label
        return pixels, label

    return replace(source, example=example)


def repeat_to(source: Source, count: int) -> Source:
    """The set, repeated as a whole until it has at least `count` images."""
    times = -(-count // len(source))
    if times <= 1:
        return source
    return source.take(np.tile(np.arange(len(source)), times))


def stratified_split(
    labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits a set at random, each class in the same proportion.

    Args:
      labels: integers `[n]`.
      share: share of each class that goes to the second part, in `[0, 1]`; rounded to
        whole images.
      seed: of the random split.

    Returns:
      Indices of the two parts, each in rising order.
    """
    second = np.zeros(len(labels), bool)
    for _, members in shuffled_classes(labels, seed):
        second[members[: round(share * len(members))]] = True
    return np.flatnonzero(~second), np.flatnonzero(second)


def subset(
    source: Source,
    *,
    count: int | None = None,
    share: float | None = None,
    labels_per_class: int | np.ndarray | None = None,
    seed: int = 0,
    rest: bool = False,
) -> Source:
    """A random subset, fixed by the seed; larger subsets contain the smaller ones.

    Args:
      source: the whole set.
      count: number of images, regardless of class.
      share: share of the images in `(0, 1]`, regardless of class.
      labels_per_class: number of images per class: one for all, or `[K]`.
      seed: of the random choice.
      rest: whether to return the images that are not chosen instead.

    Raises:
      SourceError: if more than one of `count`, `share` and `labels_per_class` is given,
        or there are not that many images.
    """
    sizes = {"count": count, "share": share, "labels_per_class": labels_per_class}
    sizes = {name: value for name, value in sizes.items() if value is not None}
    if len(sizes) > 1:
        raise SourceError(f"{source.spec}: give only one of {', '.join(sizes)}")
    if labels_per_class is not None:
        counts = np.broadcast_to(labels_per_class, len(source.class_names))
        chosen = _sample_per_class(source, counts, seed)
    else:
        chosen = _sample(source, count, share, seed)
    if rest:
        chosen = np.setdiff1d(np.arange(len(source)), chosen)
    elif not sizes:
        return source
    return source.take(chosen)


def _sample(
    source: Source, count: int | None, share: float | None, seed: int
) -> np.ndarray:
    if share is not None:
        if not 0 < share <= 1:
            raise SourceError(f"{source.spec}: share {share} must be in (0, 1]")
        count = max(1, round(share * len(source)))
    count = len(source) if count is None else count
    if not 0 < count <= len(source):
        raise SourceError(
            f"{source.spec}: count {count} must be 1 to {len(source)}, the number of "
            "images"
        )
    order = np.random.default_rng([seed, len(source)]).permutation(len(source))
    return np.sort(order[:count])


def _sample_per_class(source: Source, counts: np.ndarray, seed: int) -> np.ndarray:
    chosen = []
    for label, members in shuffled_classes(source.labels, seed):
        count = int(counts[label])
        if not 0 < count <= len(members):
            raise SourceError(
                f"{source.spec}: labels_per_class {count} must be 1 to {len(members)}, "
                f"the number of images of class {name_of(source.class_names[label])}"
            )
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))


def shuffled_classes(labels: np.ndarray, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each class with the indices of its images, in random order."""
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        yield int(label), np.random.default_rng([seed, label]).permutation(members)


def check_classes(source: Source, class_names: Sequence[str]) -> None:
    """Raises `UserError` if a source's classes differ from a run's."""
    pairs = itertools.zip_longest(class_names, source.class_names)
    for k, (ours, theirs) in enumerate(pairs):
        if ours != theirs:
            raise UserError(
                f"The classes of {source.spec} are not the run's: class {k} is "
                f"{theirs or 'missing'} there and {ours or 'missing'} in the run."
            )
