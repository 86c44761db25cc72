import dataclasses
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from train.data import SourceError, open_source
from train.data.open_source import check_outside
from train.data.select import open_unlabelled, training_images
from train.errors import UserError


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


def names(source):
    return [source.name(i) for i in range(len(source))]


def unsplit(root, **options):
    """The names of all images of a set without splits."""
    spec = f"folder:{root}"
    return [
        name
        for split in ("train", "test")
        for name in names(open_source(spec, split, **options))
    ]


JUNK = (
    "Thumbs.db",
    "THUMBS.DB",
    "desktop.ini",
    "Desktop.ini",
    ".DS_Store",
    "._001.png",
    "ehthumbs.db",
    "001.png~",
    "001.png.bak",
    "#001.png#",
    "Icon\r",
    "__MACOSX/._001.png",
    ".ipynb_checkpoints/001-checkpoint.png",
    "@eaDir/001.png",
)


@pytest.mark.parametrize("place", ["", "class1"])
def test_what_systems_and_editors_leave_behind_is_no_image_and_no_class(
    photo_folder, place
):
    expected = unsplit(photo_folder)
    for name in JUNK:
        file = photo_folder / place / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"no image")
    assert unsplit(photo_folder) == expected
    assert open_source(f"folder:{photo_folder}").class_names == (
        *("class0", "class1", "class2", "class3"),
    )
    files = open_source(f"files:{photo_folder}", labelled=False)
    assert len(files) == 100


def test_a_class_may_be_called_like_a_backup(photo_folder):
    (photo_folder / "class1").rename(photo_folder / "c~")
    (photo_folder / "class2").rename(photo_folder / "c.bak")
    assert set(open_source(f"folder:{photo_folder}").class_names) > {"c~", "c.bak"}


def test_a_link_to_a_folder_around_it_adds_no_image(write):
    spec = write("folder")
    root = Path(spec.removeprefix("folder:"))
    expected = {split: names(open_source(spec, split)) for split in ("train", "test")}
    (root.parent / "stranger.png").write_bytes(
        (root / "train/ant/00000.png").read_bytes()
    )
    for split in ("train", "test"):
        ant = root / split / "ant"
        (ant / "own").symlink_to(ant)
        (ant / "split").symlink_to(root / split)
        (ant / "set").symlink_to(root)
        (ant / "above").symlink_to("../../..")
        (ant / "other class").symlink_to("../bee")
        (ant / "other split").symlink_to(root / "test" / "ant")
        (ant / "itself").symlink_to("itself")
        # A link to itself is a file that cannot be read.
        found = sorted([*expected[split], str(ant / "itself")])
        assert names(open_source(spec, split)) == found


def test_two_links_to_one_folder_are_listed_once(photo_folder, tmp_path):
    more = tmp_path / "more"
    shutil.copytree(photo_folder / "class0", more / "deep")
    (more / "deep" / "round").symlink_to(more)
    for name in ("one", "two"):
        (photo_folder / "class1" / name).symlink_to(more)
    found = unsplit(photo_folder)
    assert len(found) == 125
    assert max(Counter(Path(name).resolve() for name in found).values()) == 1


def test_links_to_folders_and_files_stand_for_them(write, tmp_path):
    spec = write("folder")
    root = Path(spec.removeprefix("folder:"))
    expected = [np.asarray(open_source(spec).read(i)) for i in range(15)]
    for path in (root / "train" / "ant", root / "train" / "bee" / "00005.png"):
        elsewhere = tmp_path / f"elsewhere {path.name}"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    found = open_source(spec)
    for i, image in enumerate(expected):
        np.testing.assert_array_equal(found.read(i), image)
    # One class folder in both splits.
    shutil.rmtree(root / "test" / "ant")
    (root / "test" / "ant").symlink_to(root / "train" / "ant")
    np.testing.assert_array_equal(
        np.bincount(open_source(spec, "test").labels), [5, 2, 2]
    )
    np.testing.assert_array_equal(np.bincount(open_source(spec).labels), [5, 5, 5])


def test_two_classes_that_are_one_folder_are_refused(photo_folder):
    (photo_folder / "class4").symlink_to("class1")
    with pytest.raises(SourceError, match="class4 is a link to the folder of another"):
        open_source(f"folder:{photo_folder}")


def test_a_folder_that_cannot_be_read_is_named(photo_folder, monkeypatch):
    closed, scandir = os.fsencode(photo_folder / "class1"), os.scandir

    def refuse(path):
        if os.fsencode(path) == closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(SourceError, match="class1 cannot be read: Permission denied"):
        open_source(f"folder:{photo_folder}")


@pytest.mark.parametrize("train", ["train", "Train", "training", "TRAINING"])
@pytest.mark.parametrize(
    ("test", "split"),
    [
        ("Test", "test"),
        ("testing", "test"),
        ("Val", "val"),
        ("VALID", "val"),
        ("Validation", "val"),
    ],
)
def test_splits_have_their_usual_names_in_any_case(write, train, test, split):
    spec = write("folder")
    root = Path(spec.removeprefix("folder:"))
    (root / "train").rename(root / train)
    (root / "test").rename(root / test)
    (root / "notes").mkdir()  # Neither a split nor a class.
    assert len(open_source(spec, "train")) == 15
    assert len(open_source(spec, split)) == 6
    assert open_source(spec, split).class_names == ("ant", "bee", "cow")


def test_two_folders_of_one_split_are_refused(write):
    spec = write("folder")
    root = Path(spec.removeprefix("folder:"))
    shutil.copytree(root / "test", root / "Testing")
    with pytest.raises(SourceError, match="Testing and test are both the split test"):
        open_source(spec)


@pytest.mark.parametrize("name", ["train", "Training", "test", "val"])
def test_a_class_may_be_called_like_a_split(photo_folder, name):
    (photo_folder / "class3").rename(photo_folder / name)
    classes = open_source(f"folder:{photo_folder}").class_names
    assert classes == tuple(sorted(["class0", "class1", "class2", name]))
    assert len(unsplit(photo_folder)) == 100


def test_one_class_is_refused_with_what_may_be_meant(tiny, photo_folder, write):
    def config(spec):
        return dataclasses.replace(
            tiny, input=dataclasses.replace(tiny.input, data=spec)
        )

    root = photo_folder.parent / "around"
    root.mkdir()
    photo_folder.rename(root / "images")
    with pytest.raises(SourceError) as caught:
        training_images(config(f"folder:{root}"))
    assert "only the class 'images'" in str(caught.value)
    assert str(caught.value).endswith(f"Is it folder:{root}/images?")
    assert len(training_images(config(f"folder:{root}/images"))) == 80
    # Labels that are not used need not differ.
    assert len(open_unlabelled(tiny, f"folder:{root}")) == 80
    spec = write("folder")
    for name in ("ant", "bee"):
        shutil.rmtree(Path(spec.removeprefix("folder:")) / "train" / name)
    with pytest.raises(SourceError, match="only the class 'cow'.* is a class$"):
        training_images(config(spec))


@pytest.mark.parametrize("kind", ["folder", "files"])
def test_a_path_inside_the_images_is_refused_through_links_too(
    write, tmp_path, kind, monkeypatch
):
    root = Path(write("folder").removeprefix("folder:"))
    spec = f"{kind}:{root}"
    link, ant = tmp_path / "link", tmp_path / "ant"
    link.symlink_to(root)
    for out in (root, root / "run", root / "train" / "ant" / "a" / "b", link / "run"):
        for data in (spec, f"{kind}:{link}"):
            with pytest.raises(UserError, match="is inside .* choose another --out"):
                check_outside(out, "digits", "", data)
    check_outside(tmp_path / "run", spec, "digits", f"folder:{tmp_path / 'nothing'}")
    check_outside(root.parent / f"{root.name} run", spec)
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match="is inside"):
        check_outside(Path("runs/a"), f"{kind}:.")
    if kind == "folder":
        (root / "train" / "ant").rename(ant)
        (root / "train" / "ant").symlink_to(ant)
        with pytest.raises(UserError, match="is inside"):
            check_outside(ant / "run", spec)


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
