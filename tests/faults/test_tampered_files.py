"""JSON files, headers and caches that someone has changed: one line, no traceback."""

import json
import shutil

import numpy as np
import pytest

from cnn_flax import load_pretrained
from cnn_flax.weights import WeightsError
from cnn_flax.weights.fields import wrong_field
from tests.support.runs import untrained_run
from train.__main__ import main
from train.config_file import config_from_json, load_record
from train.data.label_shards import (
    LabelShard,
    read_folder,
    read_label_header,
    read_label_shard,
    write_label_shard,
)
from train.data.pseudo_label_file import read_header, read_pseudo_labels
from train.errors import UserError
from train.run.metrics import read_metrics
from train.run.output_cache import cached_rows
from train.run.run_folder import read_result, whole_result

# What replaces a value, or a whole file.
VALUES = (None, True, -1, 1.5, 10**30, "text", [], [[]], {}, {"a": 1})
TEXTS = ("", "{", "null", "3", "[]", '"a"', "[" * 10**5, "\0", '{"a": NaN}', "{}")


def one_line(error):
    message = str(error.value)
    assert message.strip()
    assert len(message.splitlines()) == 1
    assert len(message) < 700


@pytest.fixture(scope="module")
def original(tiny, tmp_path_factory):
    """A run of a model; tests must not change it."""
    return untrained_run(tmp_path_factory.mktemp("run") / "run", tiny)


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def paths(tree, prefix=()):
    """The path of every value in a JSON tree, groups included."""
    for name, value in tree.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from paths(value, (*prefix, name))


def changed(tree, path, value):
    name, *rest = path
    if rest:
        return {**tree, name: changed(tree[name], rest, value)}
    return {**tree, name: value}


def test_a_field_of_another_type_is_named():
    tree = {"a": {"b": [1.5, 2]}, "c": 1}
    fields = {"a.b": [float], "c": int}
    assert not wrong_field(tree, fields)
    assert wrong_field(tree, {"a.x": int}) == "it has no a.x"
    assert not wrong_field(tree, {"a.x": int, "y.z": str}, whole=False)
    assert wrong_field([], fields) == "it holds a list, no object"
    for wrong in (None, 3, ["x"], [True], [float("nan")], [10**400], {}):
        assert wrong_field({"a": {"b": wrong}, "c": 1}, fields)
    for wrong in (-1, 1.0, True, "1", 10**30):
        found = wrong_field({**tree, "c": wrong}, fields)
        assert found == "its c is of another type, or out of range"


def test_a_runs_config_is_checked_wherever_it_is_read(run):
    record = json.loads((run / "config.json").read_text())
    config = record["config"]
    for path in paths(config):
        for value in VALUES:
            try:
                config_from_json(changed(config, path, value))
            except UserError as error:
                assert len(str(error).splitlines()) == 1
    for name in ("model", "input", "class_names", "config"):
        for value in VALUES:
            if name == "class_names" and value == []:
                continue
            text = json.dumps({**record, name: value})
            (run / "config.json").write_text(text)
            with pytest.raises(UserError, match="config.json is damaged: it") as caught:
                load_record(run, whole=True)
            one_line(caught)
    for text in TEXTS:
        (run / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config.json (is dam|cannot)") as caught:
            load_record(run, whole=True)
        one_line(caught)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {}},
        {"model": {"name": "resnet18", "fields": {"width": "4"}}},
        {"model": {"name": "resnet18", "fields": {"width": 10**9}}},
        {"model": {"name": "resnet18", "fields": {"no field": 1}}},
        {"model": {"name": 3, "fields": {}}},
        {"input": {"image_size": 0, "channels": 1, "mean": [0.5], "std": [0.5]}},
        {"input": {"image_size": 8, "channels": 0, "mean": [0.5], "std": [0.5]}},
        {"input": {"image_size": 8, "channels": 1, "mean": 0.5, "std": [0.5]}},
        {"config": {"network": 3}},
    ],
)
def test_a_damaged_config_is_a_weights_error(run, changes):
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**record, **changes}))
    with pytest.raises(WeightsError) as caught:
        load_pretrained("resnet18", run)
    one_line(caught)


@pytest.mark.parametrize("text", ["{", '{"format": 1}', "[]"])
def test_programs_report_a_damaged_config_in_one_line(run, text, capsys):
    (run / "config.json").write_text(text)
    assert main(["predict", str(run), "x.png"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_result_is_named(tmp_path):
    for text in ("", "{", "[]", '{"accuracy": "high"}', '{"steps": -1}'):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(UserError, match="result.json") as caught:
            read_result(tmp_path)
        one_line(caught)
    (tmp_path / "result.json").write_text('{"accuracy": 0.5}')
    with pytest.raises(UserError, match=r"result.json is damaged: it has no loss"):
        whole_result(tmp_path)


def test_a_damaged_line_of_metrics_is_named(tmp_path):
    good = '{"step": 1, "epoch": 0.5, "split": "train", "loss": 1.5}\n'
    for line in ("{\n", "[]\n", '{"step": "1"}\n', "\0\n", "[" * 10**5 + "\n"):
        (tmp_path / "metrics.jsonl").write_text(good + line + good)
        with pytest.raises(UserError, match=r"Line 2 of .*metrics.jsonl is") as caught:
            read_metrics(tmp_path)
        one_line(caught)
    (tmp_path / "metrics.jsonl").write_text(good + '{"step"')
    assert len(read_metrics(tmp_path)) == 1


HEADER = {
    "format": "pseudo-labels 1",
    "run": "run",
    "step": 3,
    "ema": False,
    "teacher": "abc",
    "data": "digits",
    "digest": "def",
    "images": 4,
    "labelled": 4,
    "class_names": ["a", "b"],
    "unreadable": {"3": ["name", "reason"]},
    "versions": {},
    "machine": {},
}


def write_labels(folder, header=HEADER, rows=None):
    path = folder / "labels.npy"
    rows = np.full((4, 2), 0.5, np.float32) if rows is None else rows
    rows[3] = np.nan
    np.save(path, rows)
    (folder / "labels.npy.json").write_text(json.dumps(header))
    return path


def test_headers_of_pseudo_labels_are_checked(tmp_path):
    assert read_pseudo_labels(write_labels(tmp_path)).readable.tolist() == [
        True
    ] * 3 + [False]
    wrong = {
        "unreadable": [{"9": ["a", "b"]}, {"-1": ["a", "b"]}, {"0": "ab"}, {"x": []}],
        "labelled": [5],
        "class_names": [[], [1]],
    }
    for name in HEADER:
        empty = {} if name in ("versions", "machine", "unreadable") else None
        for value in [*VALUES, *wrong.get(name, [])]:
            good = isinstance(value, type(HEADER[name])) and value not in ([], -1)
            if value == empty or (good and name not in wrong):
                continue
            path = write_labels(tmp_path, {**HEADER, name: value})
            with pytest.raises(UserError) as caught:
                read_pseudo_labels(path)
            one_line(caught)
    for text in TEXTS:
        (tmp_path / "labels.npy.json").write_text(text)
        with pytest.raises(UserError, match="is not a file of pseudo-labels") as caught:
            read_header(tmp_path / "labels.npy")
        one_line(caught)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4',",
        b"\x93NUMPY\x01\x00\x09\x00((((((((\n",
        b"\x93NUMPY\x01\x00\x06\x00{1: 2}\n",
        b"PK\x05\x06" + bytes(18),  # An empty npz.
    ],
)
def test_arrays_with_a_broken_header_are_named(tmp_path, data):
    path = write_labels(tmp_path)
    path.write_bytes(data)
    with pytest.raises(UserError, match="labels.npy cannot be read: .") as caught:
        read_pseudo_labels(path)
    one_line(caught)
    with pytest.raises(UserError, match="cannot be read: .*Remove the fi") as caught:
        cached_rows(path, np.zeros((4, 2), np.float32), [])
    one_line(caught)


def test_folders_and_shards_of_labels_are_checked(tmp_path):
    for text in TEXTS:
        (tmp_path / "labels.json").write_text(text)
        with pytest.raises(
            UserError, match="is not a folder of label shards"
        ) as caught:
            read_folder(tmp_path)
        one_line(caught)
    keys, classes = np.zeros(2, "u8"), np.zeros((1, 2), "u2")
    header = {
        "digest": "d",
        "teacher": "t",
        "images": 2,
        "top": 1,
        "classes": 2,
        "unreadable": {},
    }
    path = tmp_path / "shard.npz"
    for name in header:
        for value in VALUES:
            if value == header[name] or isinstance(value, type(header[name])):
                continue
            broken = {**header, name: value}
            labels = LabelShard(keys, classes, classes.astype("f2"), broken)
            write_label_shard(path, labels)
            for read in (read_label_header, read_label_shard):
                with pytest.raises(
                    UserError, match="is not a label shard, or"
                ) as caught:
                    read(path)
                one_line(caught)
