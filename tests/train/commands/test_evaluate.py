import importlib.util

import numpy as np
import pytest

from train.api.evaluation import EvaluateResult
from train.commands.evaluate import Evaluate
from train.config import Config
from train.config_file import config_to_json
from train.data.source import array_source
from train.run.evaluation import Evaluation
from train.run.run_folder import write_record


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run of an older version, without a report."""
    # Charts take a second, and are tested with the report.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    four = np.arange(4)
    evaluation = Evaluation(four, four % 2, four % 2, four / 4, four * 0, four / 10)
    images = np.zeros((4, 5, 5, 1), np.uint8)
    source = array_source("npz:a", images, four % 2, ("cat", "dog"), "{}".format)
    result = EvaluateResult("title", {}, {}, evaluation, source, {})
    monkeypatch.setattr(
        "train.commands.evaluate.evaluate", lambda *arguments, **options: result
    )
    model = {"name": "resnet18", "fields": {}}
    config = config_to_json(Config())
    write_record(tmp_path / "run", {"recipe": "old", "config": config, "model": model})
    return tmp_path / "run"


def test_a_run_evaluated_as_it_was_trained_gets_its_report(run):
    Evaluate(str(run))()
    page = (run / "report.html").read_text("utf-8")
    assert "resnet18 on npz:a: 100.00 % of 4 test images" in page


def test_another_evaluation_has_a_report_only_where_it_is_asked_for(run, tmp_path):
    Evaluate(str(run), ema=True)()
    assert not (run / "report.html").exists()
    Evaluate(str(run), ema=True, report=tmp_path / "ema.html")()
    assert "The moving average of its weights" in (tmp_path / "ema.html").read_text()
    Evaluate("resnet50", data="npz:a", report=tmp_path / "model.html")()
    page = (tmp_path / "model.html").read_text("utf-8")
    assert "resnet50 on npz:a" in page and "the first published ones" in page
    assert not (run / "report.html").exists()
