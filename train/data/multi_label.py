"""Sets of images with any number of classes each: arrays, or a CSV file."""

import csv
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from cnn_flax.weights.errors import name_of, reason_of
from train.data.decode import load_image
from train.data.image_folder import probe_files
from train.data.source import (
    SPLIT_NAMES,
    Source,
    SourceError,
    Splits,
    array_source,
    split_name,
)

__all__ = ["csv_file", "multi_label_arrays"]

_MOST_TARGETS = 2**30  # Images times classes.
_FORMS = (
    "expected a header and a row per image: its file, then 0 or 1 per class, as in "
    "'image,cat,dog', or the names of its classes, as in 'image,labels' with 'cat;dog'"
)


def multi_label_arrays(
    spec: str,
    images: np.ndarray,
    targets: np.ndarray,
    class_names: tuple[str, ...],
    name: Callable[[int], str],
) -> Source:
    """A source of images in memory, with any number of classes each.

    Args:
      spec: what the user wrote, for messages.
      images: `uint8 [n, h, w, C]`.
      targets: 1 for the classes of an image and 0 for others, `[n, K]`.
      class_names: K names.
      name: index -> the image's name in messages.

    Raises:
      SourceError: if the arrays do not match, or a target is neither 0 nor 1.
    """
    if targets.shape != (len(images), len(class_names)):
        raise SourceError(
            f"{spec}: labels are {list(targets.shape)}; with several classes per image "
            f"they must be [{len(images)}, {len(class_names)}]: a row per image, with "
            "0 or 1 per class"
        )
    wrong = np.argwhere((targets != 0) & (targets != 1))
    if wrong.size:
        row, column = wrong[0]
        raise SourceError(
            f"{spec}: the label of {name(row)} for {name_of(class_names[column])} is "
            f"{targets[row, column]}; with several classes per image it must be 0 or 1"
        )
    no_labels = np.zeros(len(images), np.int32)
    source = array_source(spec, images, no_labels, class_names, name)
    return _with_targets(source, targets)


def csv_file(path: str) -> Splits:
    """Image files and their classes in a CSV file, any number of classes per image.

    The file has a header and a row per image. The first column is the image's file,
    relative to the folder of the CSV file. The others are one per class with 0 or 1, or
    a single one, `labels` or `tags`, with the names of the image's classes, separated
    by semicolons, vertical bars or, without these, spaces. A single column `label` has
    the name of the image's only class, for a set with one class per image. A column
    `split`, if there is one, says `train`, `val` or `test`.

    Raises:
      SourceError: if there is no such file, or it is not of this form.
    """
    spec, file = f"csv:{path}", Path(path).expanduser()
    if not path or not file.is_file():
        raise SourceError(f"{spec}: no such file")
    header, rows = _read(spec, file)
    files = [os.path.join(file.parent, row[0]) for row in rows]
    splits = _splits(spec, header, rows)
    classes, labels = _labels(spec, header, rows)
    return {
        split: partial(_open, spec, files, labels, classes, splits == split)
        for split in np.unique(splits).tolist()
    }


def _open(
    spec: str,
    files: Sequence[str],
    labels: np.ndarray,
    classes: tuple[str, ...],
    is_chosen: np.ndarray,
) -> Source:
    """The images of a split; labels are classes `[n]`, or 0 and 1 `[n, K]`."""
    own = [file for file, is_own in zip(files, is_chosen, strict=True) if is_own]
    channels, size = probe_files(spec, own)
    labels = labels[is_chosen]
    single = labels if labels.ndim == 1 else np.full(len(own), -1, np.int32)
    source = Source(
        spec,
        classes,
        len(own),
        example=lambda i, side: (load_image(own[i], side), int(single[i])),
        name=own.__getitem__,
        find_labels=lambda: single,
        channels=channels,
        native_size=size,
    )
    return source if labels.ndim == 1 else _with_targets(source, labels)


def _with_targets(source: Source, targets: np.ndarray) -> Source:
    labelled = source.with_columns(label=targets.astype(np.float32))
    return replace(labelled, multi_label=True)


def _read(spec: str, file: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows, without empty lines."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            numbered = enumerate(csv.reader(stream, strict=True), 1)
            lines = [(number, line) for number, line in numbered if line]
    except UnicodeDecodeError as error:
        raise SourceError(f"{spec} is no text in UTF-8") from error
    except (OSError, csv.Error) as error:
        raise SourceError(f"{spec} cannot be read: {reason_of(error)}") from error
    if len(lines) < 2 or len(lines[0][1]) < 2:
        raise SourceError(f"{spec} has no images or no classes; {_FORMS}")
    header = [name.strip() for name in lines[0][1]]
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise SourceError(
                f"{spec}: row {number} has {len(line)} values, and the header "
                f"{len(header)}"
            )
        if "\0" in line[0]:
            raise SourceError(f"{spec}: the file in row {number} has a zero byte")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise SourceError(f"{spec}: the header has {name_of(twice[0])} twice")
    return header, [line for _, line in lines[1:]]


def _splits(
    spec: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> np.ndarray:
    """The split of each image, `[n]`; `train` for all if the file does not say."""
    if "split" not in header[1:]:
        return np.full(len(rows), "train")
    column = header.index("split")
    found = [split_name(row[column].strip()) for row in rows]
    if None in found:
        wrong = rows[found.index(None)]
        raise SourceError(
            f"{spec}: the split of {name_of(wrong[0])} is {name_of(wrong[column])}; it "
            "must be one of "
            f"{', '.join(SPLIT_NAMES)}"
        )
    return np.asarray(found)


def _labels(
    spec: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], np.ndarray]:
    """The K classes' names, and classes `int32 [n]` or 0 and 1 `uint8 [n, K]`."""
    columns = [i for i, name in enumerate(header) if i and name != "split"]
    names = [header[i] for i in columns]
    if names == ["label"]:
        return _one_each(spec, rows, columns[0])
    if names in (["labels"], ["tags"]):
        classes, targets = _named(spec, [row[columns[0]] for row in rows])
    else:
        classes, targets = _columns(spec, header, rows, columns)
    if len(classes) > 1 and (targets.sum(axis=1) == 1).all():
        raise SourceError(
            f"{spec}: every image has one class: give its name in a column 'label', "
            "which a model learns as the only one"
        )
    return classes, targets


def _one_each(
    spec: str, rows: Sequence[Sequence[str]], column: int
) -> tuple[tuple[str, ...], np.ndarray]:
    names = [row[column].strip() for row in rows]
    if "" in names:
        image = name_of(rows[names.index("")][0])
        raise SourceError(f"{spec}: {image} has no label")
    classes, labels = np.unique(names, return_inverse=True)
    return tuple(classes.tolist()), labels.astype(np.int32)


def _columns(
    spec: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns: Sequence[int],
) -> tuple[tuple[str, ...], np.ndarray]:
    targets = np.zeros((len(rows), len(columns)), np.uint8)
    number = {"0": 0, "1": 1}
    for k, row in enumerate(rows):
        for j, i in enumerate(columns):
            value = number.get(row[i].strip())
            if value is None:
                raise SourceError(
                    f"{spec}: {name_of(header[i])} of {name_of(row[0])} is "
                    f"{name_of(row[i])}; it must be 0 or 1. {_FORMS.capitalize()}"
                )
            targets[k, j] = value
    return tuple(header[i] for i in columns), targets


def _named(spec: str, cells: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    separator = r"[;|]" if any(re.search(r"[;|]", cell) for cell in cells) else r"\s"
    named = [
        {part.strip() for part in re.split(separator, cell)} - {""} for cell in cells
    ]
    classes = tuple(sorted(set().union(*named)))
    if not classes:
        raise SourceError(f"{spec}: no image has a class; {_FORMS}")
    if len(cells) * len(classes) > _MOST_TARGETS:
        raise SourceError(
            f"{spec}: {len(cells):,} images have {len(classes):,} classes, among them "
            f"{name_of(classes[0])} and {name_of(classes[-1])}; is a class's name in "
            "more than one spelling, or no class?"
        )
    number = {name: k for k, name in enumerate(classes)}
    targets = np.zeros((len(cells), len(classes)), np.uint8)
    for row, names in zip(targets, named, strict=True):
        row[[number[name] for name in names]] = 1
    return classes, targets
