import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import label_shards
from train.data.label_shards import (
    LabelShard,
    dense_probabilities,
    label_path,
    open_folder,
    read_folder,
    read_label_shard,
    write_label_shard,
)
from train.errors import StorageError, UserError

HEADER = {
    "shard": "a/0.tar",
    "digest": "0123456789",
    "images": 3,
    "teacher": "t",
    "top": 2,
    "classes": 5,
    "unreadable": {"1": ["a", "no image"]},
}
FOLDER = {
    "run": "runs/a",
    "step": 3,
    "ema": False,
    "teacher": "t",
    "top": 2,
    "class_names": list("abcde"),
}


def labels(**changes):
    nan = np.nan
    arrays = {
        "keys": np.arange(3, dtype=np.uint64),
        "classes": np.array([[4, 0, 1], [2, 0, 0]], np.uint16),
        "log_probs": np.array([[-0.1, nan, -0.5], [-3, nan, -1]], np.float16),
        "header": HEADER,
    }
    return LabelShard(**{**arrays, **changes})


def test_a_label_shard_is_read_as_it_was_written_and_leaves_nothing_else(tmp_path):
    path = label_path(tmp_path, "a/0.tar")
    write_label_shard(path, labels())
    read, expected = read_label_shard(path), labels()
    for name in ("keys", "classes", "log_probs"):
        np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
        assert getattr(read, name).dtype == getattr(expected, name).dtype
    assert read.header == HEADER
    assert [file.name for file in path.parent.iterdir()] == ["0.tar.npz"]


def test_an_image_takes_forty_bytes_and_the_header_does_not_grow(tmp_path):
    sizes = []
    for n in (1000, 11_000):
        array = np.zeros((8, n))
        header = {**HEADER, "images": n, "top": 8, "unreadable": {}}
        shard = labels(
            keys=np.zeros(n), classes=array, log_probs=array - 2, header=header
        )
        write_label_shard(tmp_path / "x.npz", shard)
        sizes.append((tmp_path / "x.npz").stat().st_size)
    assert 40 * 10_000 <= sizes[1] - sizes[0] <= 40 * 10_000 + 10


def test_a_file_that_cannot_be_finished_is_not_there(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(label_shards.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_label_shard(tmp_path / "x.npz", labels())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": np.full((2, 3), 5)}, "class 5 of 5"),
        ({"log_probs": np.array([[-1, -1, -2], [-1, -2, -1]])}, "falling order"),
        ({"log_probs": np.array([[0.5, -1, -2], [-1, -2, -3]])}, "above 0"),
        ({"log_probs": np.full((2, 3), -np.inf)}, "not finite"),
        ({"log_probs": np.array([[np.nan, -1, -2], [-1, -2, -3]])}, "partly NaN"),
        ({"keys": np.zeros(4)}, r"keys is uint64 \[4\]"),
        ({"header": {}}, "top"),
    ],
)
def test_wrong_labels_are_one_error(tmp_path, changes, message):
    write_label_shard(tmp_path / "x.npz", labels(**changes))
    with pytest.raises(UserError, match=f"damaged \\(.*{message}.*remove it"):
        read_label_shard(tmp_path / "x.npz")


def test_every_damage_of_a_file_is_found(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(UserError, match="There is no file"):
        read_label_shard(path)
    write_label_shard(path, labels())
    data = path.read_bytes()
    keys = data.index(np.arange(3, dtype=np.uint64).tobytes())
    flipped = data[:keys] + b"\1" + data[keys + 1 :]  # The file has checksums.
    for damaged in (b"", data[: len(data) // 2], flipped):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="not a label shard, or is damaged"):
            read_label_shard(path)


@pytest.mark.parametrize("changes", [{"teacher": "u"}, {"top": 3}, {"run": "moved"}])
def test_of_workers_that_start_together_the_first_one_decides(
    tmp_path, monkeypatch, changes
):
    link, first = os.link, {**FOLDER, **changes}

    def after_another(*paths):
        monkeypatch.setattr(os, "link", link)
        open_folder(tmp_path, first)
        link(*paths)

    monkeypatch.setattr(os, "link", after_another)
    if "run" in changes:
        assert open_folder(tmp_path, FOLDER)["run"] == "moved"
    else:
        with pytest.raises(UserError, match="another --out"):
            open_folder(tmp_path, FOLDER)
    assert read_folder(tmp_path) == {"format": label_shards.FOLDER_FORMAT, **first}
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]


def test_a_folder_is_of_one_teacher_and_one_k(tmp_path):
    open_folder(tmp_path / "new" / "out", FOLDER)
    open_folder(tmp_path / "new" / "out", {**FOLDER, "run": "moved"})
    assert read_folder(tmp_path / "new" / "out")["run"] == "runs/a"
    with pytest.raises(UserError, match="by another teacher: step 3 of runs/a there"):
        open_folder(tmp_path / "new" / "out", {**FOLDER, "teacher": "u"})
    with pytest.raises(UserError, match="has the 2 most probable classes .*not 3"):
        open_folder(tmp_path / "new" / "out", {**FOLDER, "top": 3})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        open_folder(tmp_path / "file", FOLDER)
    for text in ("{", "[]", json.dumps({"format": "pseudo-labels 1"})):
        (tmp_path / "labels.json").write_text(text)
        with pytest.raises(UserError, match="is not a folder of label shards"):
            read_folder(tmp_path)


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 2**32))
def test_the_rest_is_spread_evenly_over_the_other_classes(count, top, seed):
    top = min(top, count)
    exact = np.random.default_rng(seed).dirichlet(np.full(count, 0.5), 20)
    order = np.argsort(-exact, axis=1)[:, :top].T
    kept = np.take_along_axis(exact, order.T, axis=1).T
    with np.errstate(divide="ignore"):
        log_probs = np.maximum(np.log(kept), -60000).astype(np.float16)
    dense = dense_probabilities(order.astype(np.uint16), log_probs, count)
    assert dense.dtype == np.float32 and dense.shape == (20, count)
    np.testing.assert_allclose(dense.sum(axis=1), 1, rtol=1e-5)
    # Float16 has 11 bits: log p is off by 2 ** -12 of itself at most.
    bound = np.abs(np.log(np.maximum(kept, 1e-6))).T * 2**-11 + 1e-3
    found = np.take_along_axis(dense, order.T, axis=1)
    assert np.all(np.abs(found - kept.T) <= bound * kept.T + 1e-6)
    for row, classes in zip(dense, order.T, strict=True):
        others = np.delete(row, classes)
        assert np.ptp(others) == 0 if others.size else True


def test_an_unreadable_image_has_no_probabilities():
    shard = labels()
    dense = dense_probabilities(shard.classes, shard.log_probs, 5)
    assert np.isnan(dense).all(axis=1).tolist() == [False, True, False]
