"""Images in folders, one folder a class."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from train.data.decode import DecodeError, header_shape, load_image
from train.data.source import SPLIT_NAMES, Source, SourceError, Splits

__all__ = ["folder", "probe"]

_PROBES = 32


def folder(path: str) -> Splits:
    """Images in folders: `PATH/train/CLASS/*` and `PATH/{val,test}/CLASS/*`.

    Without a folder `train`, `PATH/CLASS/*`: a set that is not split. Classes are the
    folders' names, sorted; images are sorted by class and path. Every file that is not
    hidden counts as an image.

    Raises:
      SourceError: the folder is not there, or has no folders in it.
    """
    spec = f"folder:{path}"
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise SourceError(f"{spec}: there is no such folder")
    inside = _folders(root)
    if not inside:
        raise SourceError(
            f"{spec}: no folder in it; an image of class cat is expected at "
            f"{root / 'cat'} or {root / 'train' / 'cat'}"
        )
    if "train" not in inside and not set(inside) <= set(SPLIT_NAMES):
        return {"train": partial(_open, spec, root, tuple(inside))}
    splits = {SPLIT_NAMES[name]: root / name for name in inside if name in SPLIT_NAMES}
    first = splits.get("train", root / inside[0])
    classes = tuple(_folders(first))
    return {
        split: partial(_open, spec, split_root, classes)
        for split, split_root in splits.items()
    }


def _folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")


def _open(spec: str, root: Path, classes: tuple[str, ...]) -> Source:
    inside = _folders(root)
    if not inside:
        raise SourceError(f"{spec}: {root} has no class folders")
    unknown = sorted(set(inside) - set(classes))
    if unknown:
        raise SourceError(
            f"{spec}: {root} has the class {unknown[0]!r}, which is not among the "
            f"{len(classes)} classes of the training images"
        )
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _files(root / name)
        if not found and name in inside:
            raise SourceError(f"{spec}: the class folder {root / name} is empty")
        files += found
        labels += [label] * len(found)
    every = np.asarray(labels, np.int32)
    channels, size = probe(spec, files)
    return Source(
        spec,
        classes,
        len(files),
        example=lambda i, least: (load_image(files[i], least), labels[i]),
        name=files.__getitem__,
        find_labels=lambda: every,
        channels=channels,
        native_size=size,
    )


def _files(root: Path) -> list[str]:
    """Every file under `root` that is not hidden, sorted by path."""
    found = []
    for parent, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [os.path.join(parent, name) for name in names if name[0] != "."]
    return sorted(found)


def probe(spec: str, files: Sequence[str]) -> tuple[int, tuple[int, int] | None]:
    """Channels and common size, from a few images spread evenly over the set.

    Raises:
      SourceError: none of them is an image.
    """
    shapes = set()
    tried = np.linspace(0, len(files) - 1, min(_PROBES, len(files))).astype(int)
    for i in tried:
        try:
            shapes.add(header_shape(files[int(i)]))
        except DecodeError as error:
            first = error
    if not shapes:
        raise SourceError(
            f"{spec}: of {len(tried)} files tried none is an image: {first}"
        )
    sizes = {shape[:2] for shape in shapes}
    return max(shape[2] for shape in shapes), sizes.pop() if len(sizes) == 1 else None
