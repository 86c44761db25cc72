import base64
import dataclasses
import io
import itertools
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tests.support.html_reader import parse, text
from tests.support.noisy_student import NAMES, label_summary, make_summary, read
from train.noisy_student.plots import (
    accuracy_chart,
    balance_chart,
    confidence_chart,
    poster,
)
from train.noisy_student.report import html_page, write_report
from train.noisy_student.summary import RoundSummary

SUMMARY = make_summary()
PAGE = html_page(SUMMARY, read)


def axes():
    return Figure().subplots()


def heights(ax):
    """Heights of the bars, `[bars]`, by label."""
    return {
        bars.get_label(): np.array([bar.get_height() for bar in bars])
        for bars in ax.containers
    }


def test_the_page_is_self_contained():
    urls = parse(PAGE).urls
    assert urls
    assert all(url.startswith("data:image/") for url in urls)
    assert "<script" not in PAGE and "@import" not in PAGE and "url(" not in PAGE


def test_the_page_shows_the_summary():
    shown = text(PAGE)
    for words in (
        "made_up: from 51.2 % to 73.8 % accuracy on 4,321 test images, with 30 labels",
        "The teacher (resnet18, 1.23 k parameters) was trained on 30 labelled images",
        "Without noise, it labelled 9 other images; student 1 (resnet34, 1.23 k",
        "Student 1 then labelled these images again for student 2 (resnet50, 1.23 k",
        "fine-tuned on the labelled images alone, at 28 pixels and without",
        "51.25 %",
        "Round 2: student 2 learns from student 1",
        "student 1: resnet34, 1.23 k parameters; +10.00 points",
        "student 2: resnet50, 1.23 k parameters; +10.00 points",
        "8 of 9 images kept",
        "66.67 % of all pseudo-labels are correct",
        "75.00 % of the kept pseudo-labels are correct",
        "The 3 most confident images per class are taken",
        "1 in total",
        "to the left of 0.35",
        "--learning-rate 0.125 --model-fields width=8",
        "python -m train noisy-student made_up",
        "<bee>, 70 % true: ant",
        "Training and labelling took 6 min in total",
    ):
        assert words in shown, words


def test_names_are_escaped():
    assert "<bee>" not in PAGE.replace("&lt;bee&gt;", "")
    assert "idx:<here>" in text(PAGE)


def test_the_examples_are_the_images():
    found = re.findall(r'data:image/png;base64,([^"]+)" alt="([^"]+)"', PAGE)
    assert len(found) == sum(len(e.labels.examples) for e in SUMMARY.rounds)
    for data, name in found:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(pixels, read(int(name.split()[-1])).squeeze())


def test_without_true_classes_the_page_claims_none():
    summary = make_summary(known=False, min_confidence=0.0, per_class=0, final=None)
    shown = text(html_page(summary, read))
    assert "correct" not in shown and "Wrong" not in shown and "true:" not in shown
    assert "Marks show" not in shown
    assert "the true classes are unknown" in shown
    assert "No image is left out for low confidence" in shown
    assert "Classes are not balanced" in shown
    assert "without augmentation" not in shown


def test_the_accuracy_chart_shows_the_accuracies():
    ax = axes()
    accuracy_chart(ax, SUMMARY)
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    accuracies = [[0, 51.25], [1, 61.25], [2, 71.25], [3, 73.75]]
    np.testing.assert_allclose(lines["test images"], accuracies)
    np.testing.assert_allclose(
        lines["pseudo-labels: all"], [[0, 200 / 3], [1, 200 / 3]]
    )
    assert lines["pseudo-labels: kept"] == [[0, 75.0], [1, 75.0]]


def test_the_confidence_chart_shows_the_histogram():
    ax, labels = axes(), SUMMARY.rounds[0].labels
    confidence_chart(ax, SUMMARY, labels)
    bars = heights(ax)
    assert bars["correct"].tolist() == labels.histogram_right
    assert (bars["correct"] + bars["wrong"]).tolist() == labels.histogram
    assert ax.get_ylim()[0] == 0


def test_the_balance_chart_shows_the_counts():
    ax, labels = axes(), SUMMARY.rounds[0].labels
    balance_chart(ax, SUMMARY, labels)
    bars = {
        group.get_label(): [bar.get_width() for bar in group]  # pyright: ignore
        for group in ax.containers
    }
    assert bars["before"] == labels.before
    assert bars["after"] == labels.kept_classes
    assert bars["after: duplicates"] == [0, 0, 1]
    assert ax.get_xlim()[0] == 0
    assert [label.get_text() for label in ax.get_yticklabels()] == NAMES


def test_many_classes_are_drawn_as_two_lines():
    counts = list(range(100))
    labels = dataclasses.replace(
        label_summary(1), before=counts, kept_classes=counts, after=[7] * 100
    )
    rounds = [RoundSummary(labels, SUMMARY.teacher)]
    names = [str(k) for k in counts]
    summary = dataclasses.replace(SUMMARY, rounds=rounds, class_names=names)
    ax = axes()
    balance_chart(ax, summary, labels)
    before, after = (line.get_ydata().tolist() for line in ax.lines)
    assert before == counts[::-1] and after == [7] * 100


def test_all_rounds_share_the_axis_of_the_classes():
    first, second = SUMMARY.rounds
    many = dataclasses.replace(second.labels, before=[90, 1, 1])
    rounds = [first, RoundSummary(many, second.student)]
    summary = dataclasses.replace(SUMMARY, rounds=rounds)
    limits = []
    for each in rounds:
        balance_chart(ax := axes(), summary, each.labels)
        limits.append((ax.get_xlim(), ax.get_ylim()))
    assert limits[0] == limits[1]
    assert limits[0][0] == pytest.approx((0, 94.5))


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_no_two_texts_of_the_poster_overlap(known, monkeypatch):
    drawn, draw = {}, Text.draw

    def spy(self, renderer, *args, **options):
        if self.get_visible() and self.get_text().strip():
            drawn[self] = self.get_window_extent(renderer)
        draw(self, renderer, *args, **options)

    monkeypatch.setattr(Text, "draw", spy)
    poster(make_summary(known), read).savefig(io.BytesIO())
    for (one, box), (other, its) in itertools.combinations(drawn.items(), 2):
        width = min(box.x1, its.x1) - max(box.x0, its.x0)
        height = min(box.y1, its.y1) - max(box.y0, its.y0)
        assert width < 1 or height < 1, (one, other)


def test_the_same_summary_gives_the_same_page():
    assert html_page(make_summary(), read) == PAGE


@pytest.mark.slow
def test_page_and_poster_are_written(tmp_path):
    write_report(tmp_path, SUMMARY, read)
    assert (tmp_path / "report.html").read_text() == PAGE
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width > 1000


def test_the_report_works_without_examples():
    rounds = [
        RoundSummary(dataclasses.replace(each.labels, examples=[]), each.student)
        for each in SUMMARY.rounds
    ]
    summary = dataclasses.replace(SUMMARY, rounds=rounds)
    assert "data:image/png" not in html_page(summary, read)
    poster(summary, read)


@pytest.mark.slow
def test_names_are_on_the_page_and_the_poster_as_they_are(tmp_path):
    names = ["$$", "\x1b<b>\udcff", "x" * 255]
    odd = {"data": "folder:\udcff$x$</p>", "command": "\x1b", "class_names": names}
    summary = dataclasses.replace(SUMMARY, **odd)
    write_report(tmp_path, summary, read)
    page = (tmp_path / "report.html").read_text("utf-8")
    shown = text(page)
    assert r"folder:\udcff$x$</p>" in shown and r"\x1b" in shown
    assert "\x1b" not in page
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width > 1000
