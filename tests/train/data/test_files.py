import os
import pathlib

import numpy as np
import pytest

from train.data import DecodeError, SourceError, eval_batches, open_source
from train.data.image_folder import header_shape


def open_files(root, **options):
    return open_source(f"files:{root}", labelled=False, **options)


def names(source):
    return [source.name(i) for i in range(len(source))]


def test_every_file_that_is_not_hidden_is_an_unlabelled_image(photo_folder):
    (photo_folder / "class1" / ".DS_Store").write_bytes(b"no image")
    (photo_folder / ".hidden").mkdir()
    (photo_folder / "class0" / "000.png").rename(photo_folder / "top.png")
    (photo_folder / "class0" / "004.png").rename(photo_folder / ".hidden" / "004.png")
    source = open_files(photo_folder)
    assert len(source) == 99 and source.class_names == ()
    assert (source.channels, source.native_size) == (3, None)
    np.testing.assert_array_equal(source.labels, np.full(99, -1))
    index = names(source).index(str(photo_folder / "top.png"))
    image, (_, label) = source.read(index), source.example(index, 0)
    assert image.shape == (10, 12, 3) and not image.any() and label == -1


def test_files_are_sorted_by_their_whole_paths(tmp_path, photo_folder):
    # "." comes before "/", and "0" after it.
    for name in ("b.png", "b/2.png", "b/c/1.png", "b0.png", "a.png", "ä ö\udcff.png"):
        file = tmp_path / "set" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((photo_folder / "class0" / "000.png").read_bytes())
    found = names(open_files(tmp_path / "set"))
    assert found == sorted(found) and len(found) == 6
    assert all(os.path.isfile(name) for name in found)


def test_each_folder_is_listed_once_and_files_are_not_opened(photo_folder, monkeypatch):
    inside = photo_folder / "class2" / "more" / "and more"
    inside.mkdir(parents=True)
    (photo_folder / "class2" / "002.png").rename(inside / "002.png")
    # Links to a folder that is listed anyway, and to one that contains them.
    (photo_folder / "again").symlink_to(photo_folder / "class0")
    (photo_folder / "class3" / "round").symlink_to(photo_folder)
    listed, checked, opened = [], [], []
    scandir, stat = os.scandir, os.stat

    def spy(paths, call):
        return lambda path, **options: paths.append(path) or call(path, **options)

    monkeypatch.setattr("os.scandir", spy(listed, scandir))
    monkeypatch.setattr("os.stat", spy(checked, stat))
    monkeypatch.setattr(
        "train.data.image_folder.header_shape", spy(opened, header_shape)
    )
    source = open_files(photo_folder)
    assert len(source) == 100
    folders = ["", "again", "class1", "class2", "class2/more", "class2/more/and more"]
    folders.append("class3")
    assert sorted(listed) == [os.fsencode(photo_folder / name) for name in folders]
    by_listing = {os.fsdecode(path) for path in checked} - set(opened)
    assert not [path for path in by_listing if pathlib.Path(path).suffix]
    assert len(opened) == 32
    names(source)
    assert len(listed) == len(folders)


def test_a_million_paths_take_little_more_memory_than_their_characters(tmp_path):
    from train.data.files import _CompactPaths

    paths = _CompactPaths("/images", (b"%06d.png" % i for i in range(10**6)))
    assert len(paths) == 10**6
    assert paths[123456] == "/images/123456.png"
    size = len(paths._bytes) + len(paths._bounds) * paths._bounds.itemsize
    assert size == 10**6 * (10 + 8) + 8


def test_an_image_that_cannot_be_read_is_masked(photo_folder, break_file):
    broken = photo_folder / "class1" / "001.png"
    break_file(broken)
    source = open_files(photo_folder)
    batch = next(eval_batches(source, batch_size=100, image_size=8, channels=3))
    masked = np.flatnonzero(batch["mask"] == 0)
    assert [source.name(i) for i in masked] == [str(broken)]


def test_subsets_are_drawn_regardless_of_class(photo_folder):
    part, more = (open_files(photo_folder, count=n) for n in (10, 20))
    assert set(names(part)) < set(names(more))
    with pytest.raises(SourceError, match="no labels to split or sample by"):
        open_files(photo_folder, labels_per_class=1)
    with pytest.raises(SourceError, match="no labels to split or sample by"):
        open_files(photo_folder, split="test")


def test_files_cannot_serve_as_labelled_images(photo_folder):
    with pytest.raises(
        SourceError,
        match="no labels to learn from.*; folder:PATH, with one folder per class, does",
    ):
        open_source(f"files:{photo_folder}")


def test_a_folder_that_is_missing_or_has_no_image_is_named(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        open_files(tmp_path / "nothing")
    with pytest.raises(SourceError, match="no file in it"):
        open_files(tmp_path)
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(SourceError, match="none of 1 files tried is an image"):
        open_files(tmp_path)


def test_a_folder_without_read_permission_is_named(photo_folder, monkeypatch):
    closed = os.fsencode(photo_folder / "class1")
    scandir = os.scandir

    def refuse(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    message = f"{photo_folder}/class1 cannot be read: Permission denied"
    with pytest.raises(SourceError, match=message):
        open_files(photo_folder)


def test_images_are_cached_only_if_asked_for(write, break_file):
    root = write("folder").removeprefix("folder:")
    cached, uncached = open_files(root), open_files(root, cache=False)
    for source in (cached, uncached):
        source.read(0)
    break_file(cached.name(0))
    assert cached.read(0).shape == (6, 6, 1)
    with pytest.raises(DecodeError):
        uncached.read(0)
