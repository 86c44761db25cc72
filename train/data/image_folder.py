"""Images in folders, one folder per class."""

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from train.data.decode import DecodeError, header_shape, load_image
from train.data.listing import Folders, enclosing, folder_names, list_files, visit
from train.data.source import Source, SourceError, Splits, split_name

__all__ = ["folder", "image_folders", "probe_files"]

_PROBED = 32  # Number of files whose headers are read.


def folder(path: str) -> Splits:
    """Images in folders: `PATH/train/CLASS/*` and `PATH/{val,test}/CLASS/*`.

    Without such split folders, `PATH/CLASS/*`: a set without splits. The names of
    splits are those of `source.SPLIT_NAMES`, in any case. The classes are the folders'
    names, sorted; images are sorted by class and path. Every file below a class folder
    counts as an image, except for hidden files, editors' backups, and what systems
    leave behind, such as `Thumbs.db` and `__MACOSX`. Each folder is listed once, even
    where links lead to it again.

    Raises:
      SourceError: if there is no such folder, it cannot be read, it has no folders in
        it, or two of them are the same split.
    """
    spec = f"folder:{path}"
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise SourceError(f"{spec}: no such folder")
    if not folder_names(spec, root):
        raise SourceError(
            f"{spec}: no folder in it; images of a class cat are expected in "
            f"{root / 'cat'} or {root / 'train' / 'cat'}"
        )
    splits = _split_folders(spec, root)
    first = splits["train"] if "train" in splits else next(iter(splits.values()))
    classes = tuple(folder_names(spec, first))
    return {
        split: partial(_open, spec, root, split_root, classes)
        for split, split_root in splits.items()
    }


def _split_folders(spec: str, root: Path) -> dict[str, Path]:
    """The folder of each split; the whole set is `train` if it is not split."""
    names = folder_names(spec, root)
    splits = {name: split for name in names if (split := split_name(name))}
    is_split = len(splits) == len(names) or any(
        split == "train" and _has_classes(spec, root / name)
        for name, split in splits.items()
    )
    if not is_split:
        return {"train": root}
    split, count = Counter(splits.values()).most_common(1)[0]
    if count > 1:
        same = " and ".join(name for name in splits if splits[name] == split)
        raise SourceError(f"{spec}: the folders {same} are both the split {split}")
    return {split: root / name for name, split in splits.items()}


def _has_classes(spec: str, path: Path) -> bool:
    """Whether a folder has folders, and not images, directly in it."""
    if not folder_names(spec, path):
        return False  # A class whose name is that of a split.
    suffixes = Image.registered_extensions()
    return not any(file.suffix.lower() in suffixes for file in path.iterdir())


def image_folders(spec: str, root: Path) -> list[Path]:
    """The folder of a set, those of its splits, and those of its classes."""
    splits = _split_folders(spec, root).values()
    classes = [split / name for split in splits for name in folder_names(spec, split)]
    return [root, *splits, *classes]


def _open(spec: str, root: Path, split_root: Path, classes: tuple[str, ...]) -> Source:
    present = folder_names(spec, split_root)
    if not present:
        raise SourceError(f"{spec}: {split_root} has no class folders")
    unknown = sorted(set(present) - set(classes))
    if unknown:
        raise SourceError(
            f"{spec}: {split_root} has the class {unknown[0]!r}, which is not among "
            f"the {len(classes)} classes of the training images"
        )
    # A link in a class to another class, or to a folder around it, adds nothing.
    visited: Folders = set()
    for place in image_folders(spec, root):
        visited |= enclosing(place) if place.is_symlink() or place == root else set()
        visit(place, visited)
    files: list[str] = []
    labels: list[int] = []
    own: Folders = set()
    for label, name in enumerate(classes):
        if name not in present:
            continue
        path = split_root / name
        if not visit(path, own):
            raise SourceError(
                f"{spec}: {path} is a link to the folder of another class"
            )
        found = sorted(
            os.path.join(path, os.fsdecode(file))
            for file in list_files(spec, path, visited)
        )
        if not found:
            raise SourceError(f"{spec}: the class folder {path} is empty")
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
