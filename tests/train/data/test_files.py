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


def test_every_file_that_is_not_hidden_is_an_image_without_a_label(photo_folder):
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


def test_each_folder_is_read_once_and_files_are_not_looked_at(
    photo_folder, monkeypatch
):
    inside = photo_folder / "class2" / "more" / "and more"
    inside.mkdir(parents=True)
    (photo_folder / "class2" / "002.png").rename(inside / "002.png")
    # Links to a folder that is read anyway, and to one that they lie in.
    (photo_folder / "again").symlink_to(photo_folder / "class0")
    (photo_folder / "class3" / "round").symlink_to(photo_folder)
    read, looked_at, opened = [], [], []
    scandir, stat = os.scandir, os.stat

    def note(notes, call):
        return lambda path, **options: notes.append(path) or call(path, **options)

    monkeypatch.setattr("os.scandir", note(read, scandir))
    monkeypatch.setattr("os.stat", note(looked_at, stat))
    monkeypatch.setattr(
        "train.data.image_folder.header_shape", note(opened, header_shape)
    )
    source = open_files(photo_folder)
    assert len(source) == 100
    folders = ["", "again", "class1", "class2", "class2/more", "class2/more/and more"]
    folders.append("class3")
    assert sorted(read) == [os.fsencode(photo_folder / name) for name in folders]
    assert not [p for p in looked_at if pathlib.Path(os.fsdecode(p)).suffix]
    assert len(opened) == 32
    names(source)
    assert len(read) == len(folders)


def test_a_million_names_take_little_more_memory_than_their_letters(tmp_path):
    from train.data.files import _Names

    found = _Names("/images", (b"%06d.png" % i for i in range(10**6)))
    assert len(found) == 10**6
    assert found[123456] == "/images/123456.png"
    size = len(found._letters) + len(found._bounds) * found._bounds.itemsize
    assert size == 10**6 * (10 + 8) + 8


def test_an_image_that_cannot_be_read_is_masked(photo_folder, break_file):
    broken = photo_folder / "class1" / "001.png"
    break_file(broken)
    source = open_files(photo_folder)
    batch = next(eval_batches(source, batch_size=100, image_size=8, channels=3))
    masked = np.flatnonzero(batch["mask"] == 0)
    assert [source.name(i) for i in masked] == [str(broken)]


def test_a_part_is_drawn_from_all_alike(photo_folder):
    part, more = (open_files(photo_folder, count=n) for n in (10, 20))
    assert set(names(part)) < set(names(more))
    with pytest.raises(SourceError, match="no labels to be split or drawn by"):
        open_files(photo_folder, labels_per_class=1)
    with pytest.raises(SourceError, match="no labels to be split or drawn by"):
        open_files(photo_folder, split="test")


def test_labels_are_not_made_up(photo_folder):
    with pytest.raises(SourceError, match="no labels to learn from.*; folder:PATH has"):
        open_source(f"files:{photo_folder}")


def test_a_folder_that_is_not_there_or_holds_no_image_is_named(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        open_files(tmp_path / "nothing")
    with pytest.raises(SourceError, match="there is no file in it"):
        open_files(tmp_path)
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(SourceError, match="of 1 files tried none is an image"):
        open_files(tmp_path)


def test_a_folder_that_may_not_be_read_is_named(photo_folder, monkeypatch):
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


def test_images_are_kept_only_where_that_is_wanted(write, break_file):
    root = write("folder").removeprefix("folder:")
    kept, read_again = open_files(root), open_files(root, keep=False)
    for source in (kept, read_again):
        source.read(0)
    break_file(kept.name(0))
    assert kept.read(0).shape == (6, 6, 1)
    with pytest.raises(DecodeError):
        read_again.read(0)
