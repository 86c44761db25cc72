import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data import open_source
from train.data.pseudo_label_file import (
    FORMAT,
    check_images,
    header_path,
    images_digest,
    predictions,
    pseudo_labelled,
    read_pseudo_labels,
    select_pseudo_labels,
)
from train.errors import UserError

# Class and confidence of eight images; the one at index 4 is unreadable.
CLASSES = [0, 1, 0, 0, 0, 1, 0, 2]
CONFIDENCES = [0.9, 0.5, 0.6, 0.95, np.nan, 0.8, 0.9, 0.35]


def make_probabilities(classes, confidences):
    """Rows with the confidences at `classes`; the other entries are equal."""
    rows = np.empty((len(classes), 3), np.float32)
    for row, k, confidence in zip(rows, classes, confidences, strict=True):
        row[:] = (1 - confidence) / 2
        row[k] = confidence
    return rows


PROBABILITIES = make_probabilities(CLASSES, CONFIDENCES)


def test_soft_labels_are_the_probabilities_and_hard_ones_the_largest():
    soft = select_pseudo_labels(PROBABILITIES)
    readable = [0, 1, 2, 3, 5, 6, 7]
    assert soft.indices.tolist() == readable
    assert (soft.indices.dtype, soft.labels.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(soft.labels, PROBABILITIES[readable])
    hard = select_pseudo_labels(PROBABILITIES, kind="hard")
    assert hard.labels.dtype == np.int32
    assert hard.labels.tolist() == [CLASSES[i] for i in readable]


def test_confidence_must_be_above_the_threshold():
    half = np.float32(0.5)
    assert select_pseudo_labels(
        PROBABILITIES, min_confidence=half
    ).indices.tolist() == [
        0,
        2,
        3,
        5,
        6,
    ]
    below = float(np.nextafter(half, np.float32(0)))
    assert 1 in select_pseudo_labels(PROBABILITIES, min_confidence=below).indices


def test_the_most_confident_of_a_class_are_kept_and_equal_ones_by_their_index():
    # Class 0 has 3 (0.95), 0 and 6 (0.9 both), 2 (0.6).
    def of_class_0(quota):
        selected = select_pseudo_labels(PROBABILITIES, per_class=quota, kind="hard")
        return selected.indices[selected.labels == 0].tolist()

    assert of_class_0(1) == [3]
    assert of_class_0(2) == [0, 3]
    assert of_class_0(3) == [0, 3, 6]
    assert of_class_0(4) == [0, 2, 3, 6]


def test_a_class_with_fewer_images_is_filled_up_to_the_quota():
    selected = select_pseudo_labels(PROBABILITIES, per_class=7, kind="hard")
    assert np.bincount(selected.labels).tolist() == [7, 7, 7]
    # 7 = 4 + 3 = 3 * 2 + 1 = 7 * 1: counts in a class differ by at most 1.
    counts = np.bincount(selected.indices, minlength=8)
    assert sorted(counts[[0, 2, 3, 6]]) == [1, 2, 2, 2]
    assert sorted(counts[[1, 5]]) == [3, 4]
    assert counts[[4, 7]].tolist() == [0, 7]


def test_a_class_without_images_stays_empty_and_a_threshold_comes_first():
    selected = select_pseudo_labels(
        PROBABILITIES, per_class=2, min_confidence=0.55, kind="hard"
    )
    assert np.bincount(selected.labels, minlength=3).tolist() == [2, 2, 0]
    assert selected.indices.tolist() == [0, 3, 5, 5]


def test_duplicates_depend_on_the_seed():
    rows = make_probabilities([0] * 40, np.linspace(0.5, 0.9, 40))
    first, again, other = (
        select_pseudo_labels(rows, per_class=60, seed=s).indices for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(first) == len(other) == 60


def test_the_selection_agrees_with_a_loop_over_images(monkeypatch):
    monkeypatch.setattr(
        "train.data.pseudo_label_file._CHUNK_ROWS", 7
    )  # Several chunks.
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.full(5, 0.3), 400).astype(np.float32)
    rows[rng.random(400) < 0.05] = np.nan
    selected = select_pseudo_labels(rows, min_confidence=0.4, per_class=30)
    kept: dict[int, list[int]] = {}
    for i in sorted(range(400), key=lambda i: -np.nan_to_num(rows[i].max())):
        k = int(rows[i].argmax())
        if rows[i].max() > 0.4 and len(kept.setdefault(k, [])) < 30:
            kept[k].append(i)
    assert set(selected.indices) == {i for members in kept.values() for i in members}
    assert len(selected.indices) == 30 * len(kept)
    np.testing.assert_array_equal(selected.labels, rows[selected.indices])


def test_without_a_confident_image_the_error_names_the_largest_confidence():
    with pytest.raises(UserError, match=r"above 0.99: the largest of 8 is 0.9500"):
        select_pseudo_labels(PROBABILITIES, min_confidence=0.99)
    with pytest.raises(UserError, match="the largest of 2 is 0.0000"):
        select_pseudo_labels(np.full((2, 3), np.nan, np.float32))


def test_predictions_are_the_largest_and_nan_where_an_image_cannot_be_read():
    classes, confidences = predictions(PROBABILITIES)
    assert classes.tolist() == CLASSES
    np.testing.assert_array_equal(confidences, np.float32(CONFIDENCES))


def write(path: Path, source, **changed):
    """Labels of a source of 15 images, one of them unreadable, as the command does."""
    probabilities = np.full((len(source), 3), 1 / 3, np.float32)
    probabilities[4] = np.nan
    np.save(path, probabilities)
    header = {
        "format": FORMAT,
        "data": source.spec,
        "class_names": ["ant", "bee", "cow"],
        "images": len(source),
        "digest": images_digest(source),
        "labelled": len(source),
        "unreadable": {"4": ["5.png", "it is empty"]},
        **{"run": "runs/digits", "step": 3, "ema": False, "teacher": "abc"},
    }
    header_path(path).write_text(json.dumps({**header, **changed}))
    return path


@pytest.fixture
def source():
    return open_source("digits", count=15)


def test_a_file_is_memory_mapped(tmp_path, source):
    labels = read_pseudo_labels(write(tmp_path / "labels.npy", source))
    assert isinstance(labels.probabilities, np.memmap)
    assert labels.probabilities.shape == (15, 3)
    assert np.flatnonzero(~labels.readable).tolist() == [4]
    assert labels.header["class_names"] == ["ant", "bee", "cow"]


def test_a_missing_or_unfinished_file_is_refused(tmp_path, source):
    path = tmp_path / "labels.npy"
    with pytest.raises(UserError, match=f"no file {path}; `pseudo-label` writes one"):
        read_pseudo_labels(path)
    write(path, source, labelled=10)
    with pytest.raises(UserError, match="not finished: 10 of 15 images"):
        read_pseudo_labels(path)
    write(path, source, images=14, labelled=14)
    with pytest.raises(
        UserError, match=r"float32 \[15, 3\], but its header.*\[14, 3\]"
    ):
        read_pseudo_labels(path)


@pytest.mark.parametrize("header", [None, "no JSON", "[]", "{}", '{"format": "other"}'])
def test_a_file_of_another_kind_is_refused(tmp_path, header):
    path = tmp_path / "weights.npy"
    np.save(path, np.zeros((4, 3), np.float32))
    if header is not None:
        header_path(path).write_text(header)
    with pytest.raises(UserError, match=f"{path} is not a file of pseudo-labels"):
        read_pseudo_labels(path)


def test_labels_of_other_images_are_refused(tmp_path, source):
    path = write(tmp_path / "labels.npy", source)
    labels = read_pseudo_labels(path)
    check_images(path, labels, source)
    check_images(path, labels, open_source("digits", count=15))
    with pytest.raises(UserError, match="15 images there, 16 here"):
        check_images(path, labels, open_source("digits", count=16))
    with pytest.raises(
        UserError, match="the same number, but other images or another order"
    ):
        check_images(path, labels, open_source("digits", count=15, seed=1))
    with pytest.raises(UserError, match="or another order"):
        check_images(path, labels, source.take(np.arange(15)[::-1]))


def test_the_selected_images_have_their_pseudo_labels_as_a_column(tmp_path, source):
    path = write(tmp_path / "labels.npy", source)
    rows = np.random.default_rng(0).dirichlet([1, 1, 1], 15).astype(np.float32)
    rows[4] = np.nan
    np.save(path, rows)
    source = dataclasses.replace(source, columns={"image_index": np.arange(15)})
    for kind, labels in (("soft", rows), ("hard", rows.argmax(1).astype(np.int32))):
        part = pseudo_labelled(path, source, kind=kind, min_confidence=0.5, per_class=6)
        selected = select_pseudo_labels(rows, min_confidence=0.5, per_class=6)
        np.testing.assert_array_equal(part.columns["image_index"], selected.indices)
        np.testing.assert_array_equal(part.columns["label"], labels[selected.indices])
        assert part.columns["label"].dtype == labels.dtype
        for row, index in enumerate(selected.indices):
            np.testing.assert_array_equal(part.read(row), source.read(int(index)))


def test_pseudo_labels_of_other_classes_are_refused(tmp_path, source):
    path = write(tmp_path / "labels.npy", source)
    assert len(pseudo_labelled(path, source, class_names=("ant", "bee", "cow"))) == 14
    message = r"other classes: ant, bee, cow there, 0, 1, 2, 3, 4 ... \(10\) here"
    with pytest.raises(UserError, match=message):
        pseudo_labelled(path, source, class_names=source.class_names)
    with pytest.raises(UserError, match="other images"):
        pseudo_labelled(path, open_source("digits", count=14))


def test_a_folder_keeps_its_digest_when_moved_or_spelled_differently(
    tmp_path, monkeypatch
):
    for i in range(5):
        file = tmp_path / "a" / "cat" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), i).save(file)
    monkeypatch.chdir(tmp_path)
    specs = [f"folder:{tmp_path / 'a'}", "folder:a", "folder:a/", "folder:./a"]
    digests = {images_digest(open_source(spec)) for spec in specs}
    monkeypatch.chdir("a")
    digests.add(images_digest(open_source("folder:.")))
    (tmp_path / "a").rename(tmp_path / "b")
    digests.add(images_digest(open_source(f"folder:{tmp_path / 'b'}")))
    assert len(digests) == 1


def test_arrays_with_other_pixels_have_another_digest(tmp_path):
    digests = set()
    for value in (0, 1):
        images = np.full((10, 4, 4), value, np.uint8)
        np.savez(tmp_path / "set.npz", x_train=images, y_train=np.zeros(10, int))
        digests.add(images_digest(open_source(f"npz:{tmp_path / 'set.npz'}")))
    assert len(digests) == 2
