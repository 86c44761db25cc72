"""`image_paths`: the image files that paths, folders and patterns name."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from train.data.listing import enclosing, list_files
from train.errors import UserError

__all__ = ["image_paths"]


def image_paths(names: Sequence[Path]) -> list[Path]:
    """The image files, each once, in the order of the names.

    A file stands for itself, a folder for all images below it, sorted, and a pattern
    such as `photos/*.jpg`, which a shell expands unless it is quoted, for what it
    matches. In folders, the ending of a file says whether it is an image.

    Raises:
      UserError: if a folder or a pattern has no image.
    """
    found: dict[Path, None] = {}
    for name in names:
        found |= dict.fromkeys(_images_of(Path(os.path.expanduser(name))))
    return list(found)


def _images_of(name: Path) -> list[Path]:
    if name.is_dir():
        files = list_files(str(name), name, enclosing(name))
        paths = [name / os.fsdecode(file) for file in files]
        images = [path for path in paths if _looks_like_an_image(path)]
        if not images:
            raise UserError(f"{name}: no image in this folder, nor below it.")
        return images
    if not name.exists() and glob.has_magic(str(name)):
        matches = sorted(map(Path, glob.glob(str(name), recursive=True)))
        images = [image for match in matches for image in _of_a_match(match)]
        if not images:
            raise UserError(f"{name}: no image matches this pattern.")
        return images
    return [name]  # Whatever is wrong with it is said when it is read.


def _of_a_match(match: Path) -> list[Path]:
    """A file that a pattern matched, or the images directly in a folder of it."""
    inside = sorted(match.iterdir()) if match.is_dir() else [match]
    visible = [path for path in inside if not path.name.startswith(".")]
    return [path for path in visible if _looks_like_an_image(path)]


def _looks_like_an_image(path: Path) -> bool:
    return path.suffix.lower() in Image.registered_extensions() and path.is_file()
