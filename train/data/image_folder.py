"""Images in folders, one folder per class."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from train.data.decode import DecodeError, header_shape, load_image
from train.data.source import SPLIT_NAMES, Source, SourceError, Splits

__all__ = ["folder", "probe_files"]

_PROBED = 32  # Number of files whose headers are read.


def folder(path: str) -> Splits:
    """Images in folders: `PATH/train/CLASS/*` and `PATH/{val,test}/CLASS/*`.

    Without a folder `train`, `PATH/CLASS/*`: a set without splits. The classes are the
    folders' names, sorted; images are sorted by class and path. Every file that is not
    hidden counts as an image.

    Raises:
      SourceError: if there is no such folder, or it has no folders in it.
    """
    spec = f"folder:{path}"
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise SourceError(f"{spec}: no such folder")
    names = _folders(root)
    if not names:
        raise SourceError(
            f"{spec}: no folder in it; images of a class cat are expected in "
            f"{root / 'cat'} or {root / 'train' / 'cat'}"
        )
    if "train" not in names and not set(names) <= set(SPLIT_NAMES):
        return {"train": partial(_open, spec, root, tuple(names))}
    splits = {SPLIT_NAMES[name]: root / name for name in names if name in SPLIT_NAMES}
    first = splits.get("train", root / names[0])
    classes = tuple(_folders(first))
    return {
        split: partial(_open, spec, split_root, classes)
        for split, split_root in splits.items()
    }


def _folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")


def _open(spec: str, root: Path, classes: tuple[str, ...]) -> Source:
    present = _folders(root)
    if not present:
        raise SourceError(f"{spec}: {root} has no class folders")
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise SourceError(
            f"{spec}: {root} has the class {unknown[0]!r}, which is not among the "
            f"{len(classes)} classes of the training images"
        )
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _files(root / name)
        if not found and name in present:
            raise SourceError(f"{spec}: the class folder {root / name} is empty")
        files += found
        labels += [label] * len(found)
    label_array = np.asarray(labels, np.int32)
    channels, size = probe_files(spec, files)
    return Source(
        spec,
        classes,
        len(files),
        example=lambda i, target_side: (load_image(files[i], target_side), labels[i]),
        name=files.__getitem__,
        find_labels=lambda: label_array,
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


def probe_files(spec: str, files: Sequence[str]) -> tuple[int, tuple[int, int] | None]:
    """Reads the headers of a few images, spread evenly over the set.

    Returns:
      The number of channels, and height and width, or None if they differ.

    Raises:
      SourceError: if none of them is an image.
    """
    shapes = set()
    tried = np.linspace(0, len(files) - 1, min(_PROBED, len(files))).astype(int)
    for i in tried:
        try:
            shapes.add(header_shape(files[int(i)]))
        except DecodeError as error:
            last_error = error
    if not shapes:
        raise SourceError(
            f"{spec}: none of {len(tried)} files tried is an image: {last_error}"
        )
    sizes = {shape[:2] for shape in shapes}
    return max(shape[2] for shape in shapes), sizes.pop() if len(sizes) == 1 else None
