"""Pseudo-labels that are no probabilities, and cached rows of another model."""

import json

import numpy as np
import pytest

from tests.faults.test_tampered_files import HEADER
from train.data import open_source
from train.data.label_shards import LabelShard, read_label_shard, write_label_shard
from train.data.pseudo_label_file import read_pseudo_labels
from train.errors import UserError
from train.run.output_cache import cache_key, cached_rows

NAN = np.nan


def labels(folder, *rows):
    rows = np.array(rows, np.float32)
    np.save(folder / "labels.npy", rows)
    header = {**HEADER, "images": len(rows), "labelled": len(rows), "unreadable": {}}
    (folder / "labels.npy.json").write_text(json.dumps(header))
    return folder / "labels.npy"


@pytest.mark.parametrize(
    "row",
    [
        (np.inf, 0),
        (-5, 6),
        (1.5, 1.5),
        (0, 0),
        (NAN, 1),
        (-np.inf, np.inf),
        (2, -1),
        (0.5, 0.51),
    ],
)
def test_rows_that_are_no_probabilities_are_refused(tmp_path, row):
    path = labels(tmp_path, (0.5, 0.5), (0, 1), row)
    with pytest.raises(UserError, match="has no probabilities: row 2 has values from"):
        read_pseudo_labels(path)


def test_rounded_probabilities_and_unreadable_images_are_accepted(tmp_path):
    path = labels(tmp_path, (NAN, NAN), (0, 1), (0.3, 0.7001), (1, 1e-4))
    assert len(read_pseudo_labels(path).probabilities) == 4


@pytest.mark.parametrize(
    ("log_probs", "classes", "message"),
    [
        ([[0], [0]], [[0], [1]], "sum to more than 1"),
        ([[0.5], [-2]], [[0], [1]], "above 0"),
        ([[-1], [-np.inf]], [[0], [1]], "not finite"),
    ],
)
def test_label_shards_are_checked(tmp_path, log_probs, classes, message):
    header = {"digest": "d", "teacher": "t", "images": 1, "top": 2, "classes": 3}
    shard = LabelShard(
        np.zeros(1, "u8"),
        np.array(classes, "u2"),
        np.array(log_probs, "f2"),
        {**header, "unreadable": {}},
    )
    write_label_shard(tmp_path / "x.npz", shard)
    with pytest.raises(UserError, match=message):
        read_label_shard(tmp_path / "x.npz")


ROOM = np.zeros((4, 2), np.float32)


def rows(value):
    yield np.arange(4), np.full((4, 2), value, np.float32)


def test_cached_rows_are_bound_to_their_key_and_their_values(tmp_path):
    path = tmp_path / "rows.npy"
    first = np.array(cached_rows(path, ROOM, rows(1), "one"))
    np.testing.assert_array_equal(cached_rows(path, ROOM, rows(2), "one"), first)
    with pytest.raises(UserError, match=r"another model or of other .*Remove the file"):
        cached_rows(path, ROOM, rows(2), "another")
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="or was changed"):
        cached_rows(path, ROOM, rows(2), "one")


def test_a_cache_by_an_older_version_is_written_again(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, ROOM)
    assert (cached_rows(path, ROOM, rows(2), "one") == 2).all()
    assert (cached_rows(path, ROOM, rows(3), "one") == 2).all()


def test_the_key_is_of_model_images_and_options():
    variables = {"params": {"a": np.ones(3), "b": np.zeros(3)}}
    swapped = {"params": {"b": np.ones(3), "a": np.zeros(3)}}
    digits = open_source("digits", count=20)
    other = digits.take(np.arange(20)[::-1])
    keys = {
        cache_key(variables, digits, 8),
        cache_key(swapped, digits, 8),
        cache_key(variables, other, 8),
        cache_key(variables, digits, 9),
    }
    assert len(keys) == 4
    assert cache_key(variables, open_source("digits", count=20), 8) in keys
