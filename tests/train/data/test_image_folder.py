import shutil
from pathlib import Path

import numpy as np
import pytest

from train.data import SourceError, open_source


def test_classes_are_the_sorted_folders_and_images_are_sorted_within_them(photo_folder):
    source = open_source(f"folder:{photo_folder}")
    assert source.class_names == ("class0", "class1", "class2", "class3")
    names = [source.name(i) for i in range(len(source))]
    assert names == sorted(names)
    assert [Path(name).parent.name for name in names] == [
        source.class_names[label] for label in source.labels
    ]


def test_a_folder_without_splits_is_split_per_class(photo_folder):
    spec = f"folder:{photo_folder}"
    train, test = open_source(spec, "train"), open_source(spec, "test")
    np.testing.assert_array_equal(np.bincount(test.labels), [5] * 4)
    names = {s.name(i) for s in (train, test) for i in range(len(s))}
    assert len(names) == 100


def test_images_of_differing_size_have_no_native_size(photo_folder):
    source = open_source(f"folder:{photo_folder}")
    assert source.native_size is None
    assert source.channels == 3


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_set_without_test_images_is_tested_on_its_validation_images(write, name):
    spec = write("folder")
    root = Path(spec.removeprefix("folder:"))
    (root / "test").rename(root / name)
    assert len(open_source(spec, "val")) == 6
    assert len(open_source(spec, "test")) == 6
    assert len(open_source(spec, "train")) == 15
    with pytest.raises(SourceError, match="leave out val_share"):
        open_source(spec, "train", val_share=0.1)


def test_a_folder_with_only_test_images_can_be_evaluated_on(write):
    spec = write("folder")
    shutil.rmtree(Path(spec.removeprefix("folder:")) / "train")
    assert open_source(spec, "test").class_names == ("ant", "bee", "cow")
    with pytest.raises(SourceError, match="has no train split, only test"):
        open_source(spec, "train")


def test_a_folder_with_only_training_images_is_split(write):
    spec = write("folder")
    shutil.rmtree(Path(spec.removeprefix("folder:")) / "test")
    assert len(open_source(spec, "train")) == 12
    assert len(open_source(spec, "test")) == 3


def test_images_in_folders_within_a_class_count_and_hidden_ones_do_not(photo_folder):
    inside = photo_folder / "class1" / "more"
    inside.mkdir()
    (photo_folder / "class1" / "001.png").rename(inside / "001.png")
    shutil.copytree(photo_folder / "class1", photo_folder / ".hidden")
    (photo_folder / "class1" / ".DS_Store").write_bytes(b"no image")
    spec = f"folder:{photo_folder}"
    assert len(open_source(spec, "train")) + len(open_source(spec, "test")) == 100


def test_an_empty_class_folder_is_named(write):
    spec = write("folder")
    empty = Path(spec.removeprefix("folder:")) / "train" / "bear"
    empty.mkdir()
    with pytest.raises(SourceError, match=f"the class folder {empty} is empty"):
        open_source(spec)


def test_a_split_may_lack_a_class(write):
    spec = write("folder")
    shutil.rmtree(Path(spec.removeprefix("folder:")) / "test" / "bee")
    np.testing.assert_array_equal(open_source(spec, "test").labels, [0, 0, 2, 2])


def test_a_class_without_training_images_is_named(write):
    spec = write("folder")
    (Path(spec.removeprefix("folder:")) / "test" / "bear").mkdir()
    with pytest.raises(SourceError, match="has the class 'bear', which is not among"):
        open_source(spec, "test")


def test_a_folder_that_is_missing_or_has_no_classes_is_named(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        open_source(f"folder:{tmp_path / 'nothing'}")
    with pytest.raises(SourceError, match="no folder in it; images of a class cat"):
        open_source(f"folder:{tmp_path}")
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    for split in ("train", "test"):
        with pytest.raises(SourceError, match=f"{split} has no class folders"):
            open_source(f"folder:{tmp_path}", split)


def test_a_folder_without_any_image_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    for i in range(3):
        (tmp_path / "cat" / f"{i}.txt").write_text("no image")
    with pytest.raises(SourceError, match=r"none of 3 files tried is an image: .*txt"):
        open_source(f"folder:{tmp_path}")
