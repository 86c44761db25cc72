import base64
import importlib.util
import io
import math
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.support.evaluations import made_up_evaluation
from tests.support.html_reader import parse, text
from train.config import Config
from train.config_file import config_to_json
from train.data.source import array_source
from train.run import report as report_module
from train.run.comparison import comparison_page
from train.run.report import Report, lowest_loss, report_page
from train.run.report_unlabelled import unlabelled_section, was_measured
from train.run.reporting import report_run

NAMES = ("<script>alert(1)</script>", '"onload="alert(2)', "$x$ &amp;", "\x1b[1m")


def evaluation():
    """40 images, image i with loss i; images 0, 8, 16, ... are taken for class 1."""
    return made_up_evaluation(4, 8, np.linspace(0.3, 1, 40))


def source():
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] + np.zeros(
        (40, 6, 5, 1), np.uint8
    )
    return array_source(
        'folder:"><img src=x>', images, np.arange(40) % 4, NAMES, '"><b>{}'.format
    )


def record(**flags):
    config = config_to_json(Config(**{"epochs": 2, **flags}))
    return {
        "recipe": "a <recipe>",
        "config": config,
        "model": {"name": "resnet18"},
        "class_names": list(NAMES),
        "versions": {"jax": "0.12"},
        "machine": {"device": "<cpu>"},
    }


LINES = [
    {"split": "train", "step": 4, "epoch": 1.0, "loss": 2.0, "accuracy": 0.25},
    {"split": "test", "step": 4, "epoch": 1.0, "loss": 1.5, "accuracy": 0.75},
    {"split": "train", "step": 8, "epoch": 2.0, "loss": 1.0, "accuracy": 0.5},
    {"split": "test", "step": 8, "epoch": 2.0, "loss": 1.2, "accuracy": 0.5},
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = tmp_path_factory.mktemp("it's <b>")
    failed = []
    report = Report(
        evaluation(), source(), "test", "resnet18", run, record(), LINES, None
    )
    page = report_page(report, failed.append)
    assert not failed
    return page


def test_a_report_loads_nothing_and_runs_nothing(page):
    urls = parse(page).urls
    assert len(urls) == 5 + 18 + 12
    assert all(url.startswith("data:image/") for url in urls)
    assert not re.search(r"<script|@import|url\(|<[^>]* on\w+=", page)


def test_names_are_shown_as_they_are(page):
    shown = text(page)
    for name in (*NAMES[:3], r"\x1b[1m", 'folder:"><img src=x>', "a <recipe>"):
        assert name in shown
    assert "\x1b" not in page


def test_a_report_has_all_its_parts(page):
    shown = text(page)
    for words in (
        'resnet18 on folder:"><img src=x>: 87.50 % of 40 test images',
        "It has not ended: this is its last checkpoint.",
        "87.50 % accuracy",
        "Best: 75.00 % in epoch 1 (ring); the last one, whose weights are kept, has 50",
        # Class 0 has 10 images, of which 5 are taken for class 1.
        '<script>alert(1)</script> → "onload="alert(2) 5 (50.00 %)',
        "<script>alert(1)</script> 10 50.00 % 100.00 %",
        # Of the 15 images taken for class 1, 10 are.
        '"onload="alert(2) 10 100.00 % 66.67 %',
        "On average the model is 65.00 % sure and 87.50 % right: under-confident by 22",
        "--epochs 2",
        "--epochs 4 --extend",
        "jax 0.12",
    ):
        assert words in shown, words


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (
            {
                "unlabelled_used": 0.5,
                "unlabelled_used_right": 0.4,
                "unlabelled_threshold": 0.7,
                "unlabelled_threshold_lowest": 0.2,
                "unlabelled_threshold_highest": 0.9,
            },
            ["mean over the classes", "is learned from, and with the true class"],
        ),
        ({"unlabelled_used": 0.5}, ["is learned from. The threshold is 95 %."]),
        ({"unlabelled_confidence": 0.9}, ["Mean confidence of the guessed labels"]),
    ],
)
def test_a_report_shows_thresholds_and_use_of_unlabelled_images(metrics, words):
    lines = [
        {**line, **metrics} if line["split"] == "train" else line for line in LINES
    ]
    settings = {"consistency": "freematch", "threshold": 0.95}
    assert was_measured(lines) and not was_measured(LINES)
    page = unlabelled_section(lines, settings)
    assert len(parse(page).urls) == 1 + ("unlabelled_threshold" in metrics)
    for part in words:
        assert part in text(page)


def test_worst_and_least_sure_images_are_apart(page):
    _, worst, unsure = re.split("<h2>(?:Worst|Least sure) images", page)
    unsure = unsure.partition("</section>")[0]

    def indices(part):
        urls = re.findall('data:image/png;base64,([^"]+)', part)
        files = (io.BytesIO(base64.b64decode(url)) for url in urls)
        return [int(np.asarray(Image.open(file))[0, 0]) for file in files]

    assert indices(worst) == list(range(39, 21, -1))
    assert indices(unsure) == list(range(12))


def test_the_share_of_label_smoothing_is_the_smallest_smoothed_loss():
    smoothing = {"optimization": {"label_smoothing": 0.1}}
    tree = {"config": smoothing, "class_names": list("0123456789")}
    right, other = 0.91, 0.01
    entropy = -right * math.log(right) - 9 * other * math.log(other)
    assert lowest_loss(tree) == pytest.approx(entropy)
    assert lowest_loss({"config": {}, "class_names": ["a"]}) == 0
    taught = {"config": {**smoothing, "distillation": {"teacher": "runs/a"}}}
    assert lowest_loss({**tree, **taught}) == 0


def test_without_matplotlib_the_report_says_so_and_has_the_images(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    console = Console(file=(file := io.StringIO()), width=200)
    report_run(tmp_path, record(), evaluation(), source(), console)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "[plots]&#x27;" in page
    assert "svg" not in page and len(parse(page).urls) == 30
    assert file.getvalue() == f"Report: {tmp_path / 'report.html'}\n"


def test_a_report_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "_introduction", None)
    console = Console(file=(file := io.StringIO()), width=200)
    report_run(tmp_path, record(), evaluation(), source(), console)
    assert "report.html could not be written: TypeError" in file.getvalue()
    assert file.getvalue().count("\n") == 1


def test_a_report_of_a_run_of_another_version_shows_its_flags(tmp_path):
    old = record()
    old["config"]["of_the_future"] = 7
    report = Report(evaluation(), source(), "test", "resnet18", tmp_path, old, [], None)
    failed = []
    assert "--of-the-future 7" in text(report_page(report, failed.append))
    assert not failed


def test_a_comparison_shows_figures_and_the_flags_that_differ():
    runs = {"a <b>": (record(), LINES), "b": (record(seed=3), LINES[:2])}
    page = comparison_page(runs)
    shown = text(page)
    assert "a <b> resnet18 2 of 2 1.2000 50.00 % 75.00 % (epoch 1)" in shown
    assert "b resnet18 1 of 2 1.5000 75.00 % 75.00 % (epoch 1)" in shown
    assert "Settings that differ flag a <b> b --seed 0 3" in shown
    assert all(url.startswith("data:image/svg+xml") for url in parse(page).urls)
