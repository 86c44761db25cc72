import json

import pytest

from benchmarks.record import Record, describe, read, write
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
    record = Record({"device": "a", "jax": "0"}, [ROW, {**ROW, "candidate": "torch"}])
    path = tmp_path / "new" / "a.json"
    write(path, record)
    assert read(path) == record
    # A line a row.
    assert path.read_text().count("\n") == 10


def test_the_header_says_on_what_when_and_how():
    head = describe(["inference", "--models", "a b"])
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
def test_a_broken_file_is_told(tmp_path, text, message):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read(path)


def test_files_that_cannot_be_are_told(tmp_path):
    with pytest.raises(UserError, match="none.json cannot be read: No such file"):
        read(tmp_path / "none.json")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        write(tmp_path / "file" / "a.json", Record({}, []))
