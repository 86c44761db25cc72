"""Images that change after their folder was listed, as in the middle of a run."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data import BadImages, eval_batches, open_source
from train.errors import UserError


def vanish(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:60])


def become_a_folder(path):
    path.unlink()
    path.mkdir()


def empty(path):
    path.write_bytes(b"")


def become_unreadable(path):
    path.unlink()
    path.symlink_to(path)  # A circle of links.


def lie(width, height):
    """Gives a PNG another size in its header, with the right checksum."""

    def change(path):
        data = path.read_bytes()
        header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
        checksum = struct.pack(">I", zlib.crc32(header))
        path.write_bytes(data[:12] + header + checksum + data[33:])

    return change


FAULTS = {
    **{f.__name__: f for f in (vanish, truncate, become_a_folder, empty)},
    **{"a circle": become_unreadable, "wider": lie(9, 8)},
    **{"huge": lie(2**31 - 1, 2**31 - 1), "no pixels": lie(0, 8)},
}


OPTIONS = {"batch_size": 3, "image_size": 8, "channels": 3, "threads": 1}


@pytest.fixture
def source(tmp_path):
    """A folder of small images of two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    for i, image in enumerate(pixels):
        (tmp_path / "train" / f"{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "train" / f"{i % 2}" / f"{i}.png")
    return open_source(f"folder:{tmp_path}", "train")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_an_image_that_changes_after_the_listing_is_left_out_and_named(source, fault):
    bad_path = Path(source.name(len(source) - 1))
    fault(bad_path)
    lines = []
    bad = BadImages(len(source), max_share=0.3, say=lines.append)
    batches = list(eval_batches(source, **OPTIONS, bad_images=bad))
    assert list(bad.found) == [str(bad_path)]
    assert len(lines) == 1 and len(lines[0].splitlines()) == 1
    mask = np.concatenate([batch["mask"] for batch in batches])
    order = np.concatenate([batch["index"] for batch in batches])
    assert mask.sum() == len(source) - 1
    names = [source.name(int(i)) for i in order[mask > 0]]
    assert str(bad_path) not in names and len(set(names)) == len(names)


def test_a_folder_of_images_that_vanishes_is_too_many_images(source, tmp_path):
    shutil.rmtree(tmp_path / "train")
    bad = BadImages(len(source), max_share=0.3, say=lambda message: None)
    with pytest.raises(UserError, match="cannot be read, more than the allowed share"):
        list(eval_batches(source, **OPTIONS, bad_images=bad))
