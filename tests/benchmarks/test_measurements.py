import json

import pytest

from benchmarks.measurements import (
    Measurements,
    new_header,
    read,
    read_lines,
    write,
    write_lines,
)
from train.errors import StorageError, UserError

ROW = {
    "benchmark": "inference",
    "case": "resnet50",
    "candidate": "ours",
    "seconds": [0.1, 0.2],
    "median": 0.15,
    "spread": 0.2,
}


def test_what_is_written_is_read(tmp_path):
    measurements = Measurements(
        {"device": "a", "jax": "0"}, [ROW, {**ROW, "candidate": "torch"}]
    )
    path = tmp_path / "new" / "a.json"
    write(path, measurements)
    assert read(path) == measurements
    # One line per row.
    assert path.read_text().count("\n") == 10


def test_the_header_says_on_what_when_and_how():
    head = new_header(["inference", "--models", "a b"])
    assert head["command"] == "python -m benchmarks inference --models 'a b'"
    assert {"device", "processor", "jax", "commit", "date"} <= head.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "it has no header and rows"),
        (json.dumps({"header": {}, "rows": [{"case": "a"}]}), "row 0 has no benchmark"),
        (json.dumps({"header": {}, "rows": [1]}), "row 0 has no benchmark"),
    ],
)
def test_a_broken_file_is_explained(tmp_path, text, message):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read(path)


def test_the_row_of_a_finished_run_keeps_its_date(tmp_path):
    path = tmp_path / "some.jsonl"
    origin = {"date": "2026-01-01", "machine": "m", "jax": "0"}
    older = {"arm": "a", "seconds": 1.5, **origin}
    path.write_text(json.dumps(older) + "\n")
    other = {"arm": "c", "seconds": 2.0}
    write_lines(path, [{"arm": arm, "seconds": 1.5} for arm in "ab"], [other])
    first, unchanged, new = read_lines(path)
    assert first == other
    assert unchanged == older
    assert new["arm"] == "b" and new["date"] > older["date"]


def test_impossible_paths_are_explained(tmp_path):
    with pytest.raises(UserError, match="none.json cannot be read: No such file"):
        read(tmp_path / "none.json")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        write(tmp_path / "file" / "a.json", Measurements({}, []))
