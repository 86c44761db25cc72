"""Shards of images to measure with."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["write_image_tar"]


def write_image_tar(path: Path, images: Iterable[np.ndarray]) -> None:
    """Writes images uint8 `[H, W]` or `[H, W, 3]` to a tar, as numbered PNG files."""
    with tarfile.open(path, "w") as tar:
        for i, image in enumerate(images):
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "png")
            info = tarfile.TarInfo(f"{i:05}.png")
            info.size = stream.tell()
            stream.seek(0)
            tar.addfile(info, stream)
