import importlib.util
import json
from pathlib import Path

import pytest

from train.commands.compare import _labels, compare
from train.errors import UserError
from train.run.run_folder import write_record


def write_run(run, accuracy):
    write_record(run, {"model": {"name": "resnet18"}, "config": {"epochs": 2}})
    line = {"split": "test", "step": 5, "epoch": 1, "loss": 1, "accuracy": accuracy}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return run


@pytest.fixture
def runs(tmp_path):
    return [write_run(tmp_path / name, 0.5) for name in ("a", "b")]


def test_runs_share_one_picture_and_one_table(runs, tmp_path, quiet):
    compare(runs, tmp_path / "both.png", quiet)
    assert (tmp_path / "both.png").read_bytes()[:4] == b"\x89PNG"
    text = quiet.file.getvalue()
    assert "50.00 %" in text and "1 of 2" in text
    assert text.splitlines()[-1] == str(tmp_path / "both.png")


def test_without_matplotlib_table_and_page_are_still_there(
    runs, tmp_path, quiet, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    compare(runs, tmp_path / "both.png", quiet)
    assert "[plots]'" in quiet.file.getvalue()
    assert not (tmp_path / "both.png").exists()
    compare(runs, tmp_path / "both.html", quiet)
    page = (tmp_path / "both.html").read_text("utf-8")
    assert "50.00 %" in page and "no charts" in page


def test_labels_are_the_paths_without_their_common_part():
    runs = [Path("/runs/digits/0"), Path("/runs/fashion/0")]
    assert _labels(runs) == ["digits/0", "fashion/0"]
    assert _labels(runs[:1]) == ["0"]


def test_bad_arguments_are_refused(runs, tmp_path, quiet):
    with pytest.raises(UserError, match="missing holds no run"):
        compare([tmp_path / "missing"], tmp_path / "x.png", quiet)
    with pytest.raises(UserError, match="given twice"):
        compare([runs[0], runs[0]], tmp_path / "x.png", quiet)
    with pytest.raises(UserError, match="x.doc cannot be written"):
        compare(runs, tmp_path / "x.doc", quiet)
    with pytest.raises(UserError, match="x.png cannot be written"):
        compare(runs, tmp_path / "nowhere" / "x.png", quiet)
