import base64
import dataclasses
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tests.train.noisy_student.made_up import NAMES, labelled, make_facts, read
from train.noisy_student.plots import (
    accuracy_chart,
    balance_chart,
    confidence_chart,
    poster,
)
from train.noisy_student.report import page, write_report
from train.noisy_student.summary import Round

FACTS = make_facts()
PAGE = page(FACTS, read)


class Reader(HTMLParser):
    """Gathers a page's text, and the addresses of what it takes from elsewhere."""

    def __init__(self):
        super().__init__()
        self.words, self.addresses, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words += data.split()


def decode_options(html):
    reader = Reader()
    reader.feed(html)
    assert not reader.open
    return reader


def text(html):
    return " ".join(decode_options(html).words)


def axes():
    return Figure().subplots()


def heights(ax):
    """Of the bars, by the label of their kind: `[bars]` each."""
    return {
        bars.get_label(): np.array([bar.get_height() for bar in bars])
        for bars in ax.containers
    }


def test_the_page_needs_nothing_else():
    addresses = decode_options(PAGE).addresses
    assert addresses
    assert all(address.startswith("data:image/") for address in addresses)
    assert "<script" not in PAGE and "@import" not in PAGE and "url(" not in PAGE


def test_the_page_says_what_the_facts_say():
    shown = text(PAGE)
    for told in (
        "made_up: 51.2 % to 73.8 % of 4,321 test images, from 30 labels",
        "51.25 %",
        "Round 2: student 2 learns from student 1",
        "student 1: resnet34, 1.23 k parameters; +10.00 points",
        "student 2: resnet50, 1.23 k parameters; +10.00 points",
        "8 of 9 images kept",
        "66.67 % of all pseudo-labels are right",
        "75.00 % of the kept ones are right",
        "Of each class the 3 surest are taken",
        "1 in all",
        "to the left of 0.35",
        "learning-rate 0.125 model-fields width=8",
        "python -m train noisy-student made_up",
        "<bee>, 70 % truly ant",
        "All training and labelling took 6 min",
    ):
        assert told in shown, told


def test_names_are_text_and_no_markup():
    assert "<bee>" not in PAGE.replace("&lt;bee&gt;", "")
    assert "idx:<here>" in text(PAGE)


def test_the_pictures_are_the_images():
    found = re.findall(r'data:image/png;base64,([^"]+)" alt="([^"]+)"', PAGE)
    assert len(found) == sum(len(e.labels.examples) for e in FACTS.rounds)
    for data, name in found:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(pixels, read(int(name.split()[-1])).squeeze())


def test_without_true_classes_it_claims_none():
    facts = make_facts(known=False, min_confidence=0.0, per_class=0, final=None)
    shown = text(page(facts, read))
    assert "are right" not in shown and "Wrong" not in shown and "truly" not in shown
    assert "the true classes are not known" in shown
    assert "None is left out for its confidence" in shown
    assert "Classes are not balanced" in shown
    assert "without augmentation" not in shown


def test_the_accuracies_are_drawn_where_they_are():
    ax = axes()
    accuracy_chart(ax, FACTS)
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    accuracies = [[0, 51.25], [1, 61.25], [2, 71.25], [3, 73.75]]
    np.testing.assert_allclose(lines["test images"], accuracies)
    np.testing.assert_allclose(
        lines["pseudo-labels: all"], [[0, 200 / 3], [1, 200 / 3]]
    )
    assert lines["pseudo-labels: kept"] == [[0, 75.0], [1, 75.0]]


def test_the_bars_of_confidence_are_the_histogram():
    ax, labels = axes(), FACTS.rounds[0].labels
    confidence_chart(ax, FACTS, labels)
    bars = heights(ax)
    assert bars["right"].tolist() == labels.histogram_right
    assert (bars["right"] + bars["wrong"]).tolist() == labels.histogram
    assert ax.get_ylim()[0] == 0


def test_the_bars_of_balance_are_the_counts():
    ax, labels = axes(), FACTS.rounds[0].labels
    balance_chart(ax, labels, NAMES)
    bars = {
        group.get_label(): [bar.get_width() for bar in group]  # pyright: ignore
        for group in ax.containers
    }
    assert bars["before"] == labels.before
    assert bars["after"] == labels.kept_classes
    assert bars["after: copies"] == [0, 0, 1]
    assert ax.get_xlim()[0] == 0
    assert [label.get_text() for label in ax.get_yticklabels()] == NAMES


def test_many_classes_are_two_lines():
    counts = list(range(100))
    labels = dataclasses.replace(
        labelled(1), before=counts, kept_classes=counts, after=[7] * 100
    )
    ax = axes()
    balance_chart(ax, labels, [str(k) for k in counts])
    before, after = (line.get_ydata().tolist() for line in ax.lines)
    assert before == counts[::-1] and after == [7] * 100


@pytest.mark.parametrize("known", [True, False])
def test_no_text_of_the_picture_lies_on_another(known, monkeypatch):
    drawn, draw = {}, Text.draw

    def note(self, renderer, *args, **options):
        if self.get_visible() and self.get_text().strip():
            drawn[self] = self.get_window_extent(renderer)
        draw(self, renderer, *args, **options)

    monkeypatch.setattr(Text, "draw", note)
    poster(make_facts(known), read).savefig(io.BytesIO())
    for (one, box), (other, its) in itertools.combinations(drawn.items(), 2):
        width = min(box.x1, its.x1) - max(box.x0, its.x0)
        height = min(box.y1, its.y1) - max(box.y0, its.y0)
        assert width < 1 or height < 1, (one, other)


def test_the_same_facts_give_the_same_page():
    assert page(make_facts(), read) == PAGE


def test_page_and_picture_are_written(tmp_path):
    write_report(tmp_path, FACTS, read)
    assert (tmp_path / "report.html").read_text() == PAGE
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width > 1000


def test_images_without_examples_are_reported_too():
    rounds = [
        Round(dataclasses.replace(each.labels, examples=[]), each.student)
        for each in FACTS.rounds
    ]
    facts = dataclasses.replace(FACTS, rounds=rounds)
    assert "data:image/png" not in page(facts, read)
    poster(facts, read)
