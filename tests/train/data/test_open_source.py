import importlib.abc
import sys

import numpy as np
import pytest

from train.data import SourceError, open_source
from train.data.source import stratified_split


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_form_of_a_set_gives_the_same_images(any_spec, arrays, split):
    source = open_source(any_spec, split)
    images, labels = arrays(split)
    assert len(source) == len(images)
    assert source.class_names == ("ant", "bee", "cow")
    assert source.channels == 1
    assert source.native_size == (6, 6)
    assert source.labels.dtype == np.int32
    np.testing.assert_array_equal(source.labels, labels)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(source.read(i), image[..., None])
    assert len({source.name(i) for i in range(len(source))}) == len(source)


class NoTensorFlow(importlib.abc.MetaPathFinder):
    """Hides TensorFlow even if it is installed.

    `sys.modules["tensorflow"] = None` would not do: tfds takes it for loaded.
    """

    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            raise ModuleNotFoundError("No module named 'tensorflow'", name=name)


def test_no_source_needs_tensorflow(any_spec, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoTensorFlow(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tensorflow")
    assert open_source(any_spec).read(0).shape == (6, 6, 1)


def test_unknown_data_names_the_nearest():
    with pytest.raises(SourceError, match=r"unknown data 'digit': did you mean digits"):
        open_source("digit")
    with pytest.raises(SourceError, match="available: csv, digits, files, folder, idx"):
        open_source("/home/me/images")


def test_a_path_without_its_kind_suggests_the_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").touch()
    (tmp_path / "set.npz").touch()
    (tmp_path / "set.csv").touch()
    kinds = {"photos": "folder", "mnist": "idx", "set.npz": "npz", "set.csv": "csv"}
    for path, kind in kinds.items():
        with pytest.raises(SourceError, match=f"did you mean {kind}:{path}. "):
            open_source(path)


def test_a_missing_fashion_mnist_says_how_to_get_it():
    message = "no such folder. .*apt install dataset-fashion-mnist; .*zalandoresearch"
    with pytest.raises(SourceError, match=message):
        open_source("idx:/nowhere/fashion-mnist")
    with pytest.raises(SourceError, match="no such folder$"):
        open_source("idx:/nowhere/mnist")


def test_unknown_split_names_the_splits():
    with pytest.raises(SourceError, match="unknown split 'dev': train, val, test"):
        open_source("digits", "dev")  # pyright: ignore[reportArgumentType]


def pictures(source):
    return [source.read(i).tobytes() for i in range(len(source))]


def test_a_set_without_splits_is_split_by_the_seed():
    train, test = (open_source("digits", split, seed=3) for split in ("train", "test"))
    names = [{source.name(i) for i in range(len(source))} for source in (train, test)]
    assert len(names[0]) + len(names[1]) == 1797
    assert not names[0] & names[1]
    again, other = (open_source("digits", "test", seed=seed) for seed in (3, 4))
    assert pictures(test) == pictures(again)
    assert pictures(test) != pictures(other)
    share = np.bincount(test.labels) / np.bincount(
        np.concatenate([train.labels, test.labels])
    )
    np.testing.assert_allclose(share, 0.2, atol=0.003)  # Whole images, of about 180.


def test_stratified_split_takes_the_share_of_each_class():
    labels = np.asarray([0] * 10 + [1] * 20 + [2] * 5)
    first, second = stratified_split(labels, 0.2, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[second]), [2, 4, 1])
    np.testing.assert_array_equal(np.sort(np.concatenate([first, second])), range(35))
    assert (np.diff(first) > 0).all()


def test_validation_images_are_taken_out_of_the_training_images(write):
    spec = write("idx")
    train, val = (
        pictures(open_source(spec, split, val_share=0.4)) for split in ("train", "val")
    )
    assert len(val) == 6
    assert sorted(train + val) == sorted(pictures(open_source(spec)))
    test = open_source(spec, "test", val_share=0.4)
    assert pictures(test) == pictures(open_source(spec, "test"))


def test_without_validation_images_the_message_says_how_to_hold_some_out(write):
    message = "has no val split, only test, train; val_share holds one out of train"
    with pytest.raises(SourceError, match=message):
        open_source(write("idx"), "val")
    with pytest.raises(SourceError, match=r"val_share 1.5 must be in \[0, 1\)"):
        open_source("digits", "val", val_share=1.5)


def test_a_split_that_rounds_to_no_image_says_what_to_do(write, photo_folder):
    spec = write("idx")
    with pytest.raises(SourceError, match=r"left for val.*5; .* must be above 0\.1$"):
        open_source(spec, "val", val_share=0.1)
    assert len(open_source(spec, "val", val_share=0.11)) == 3
    with pytest.raises(SourceError, match=r"left for train.* must be below 0\.9$"):
        open_source(spec, "train", val_share=0.91)
    for file in photo_folder.glob("*/*.png"):
        if int(file.stem) >= 8:
            file.unlink()
    spec = f"folder:{photo_folder}"
    with pytest.raises(SourceError, match="left for test.* than 2; .* needs 3"):
        open_source(spec, "test")
    assert len(open_source(spec, "train")) == 8


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"count": 40}, {"count": 90}),
        ({"share": 0.1}, {"share": 0.35}),
        ({"labels_per_class": 4}, {"labels_per_class": 9}),
    ],
)
def test_a_subset_is_fixed_by_the_seed_and_contains_the_smaller_ones(less, more):
    def names(**options):
        source = open_source("digits", **options)
        return [source.name(i) for i in range(len(source))]

    assert names(**less, seed=1) == names(**less, seed=1)
    assert names(**less, seed=1) != names(**less, seed=2)
    assert set(names(**less)) < set(names(**more)) < set(names())


def test_subsets_have_the_size_that_was_asked_for():
    assert len(open_source("digits", count=41)) == 41
    assert len(open_source("digits", share=0.5)) == 719
    balanced = open_source("digits", labels_per_class=7)
    np.testing.assert_array_equal(np.bincount(balanced.labels), [7] * 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count 0 must be 1 to 1438"),
        ({"count": 1439}, "count 1439 must be 1 to 1438"),
        ({"share": 1.5}, r"share 1.5 must be in \(0, 1\]"),
        (
            {"labels_per_class": 150},
            "150 must be 1 to 14., the number of images of class '0'",
        ),
        ({"count": 5, "share": 0.5}, "give only one of count, share"),
    ],
)
def test_impossible_subsets_are_refused(options, message):
    with pytest.raises(SourceError, match=message):
        open_source("digits", **options)


def test_a_small_set_is_read_once(write, break_file):
    spec = write("folder")
    source = open_source(spec)
    first = source.read(3)
    break_file(source.name(3))
    np.testing.assert_array_equal(source.read(3), first)
