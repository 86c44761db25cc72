import importlib

import pytest

from benchmarks.measurements import read
from benchmarks.tables import tabulate
from benchmarks.text_table import text_tables
from tests.support.pages import ROOT

HEADINGS = ("case", "candidate", "ms", "memory, MB", "ours faster by", "not measured")
LINES = (
    ("resnet50, batch 16", "ours", "489.94", "848", "", ""),
    ("", "torch.compile", "389.65", "1,122", "0.80", ""),
    ("", "plain Flax", "", "", "", "out of memory " * 5),
    ("vgg16, batch 16", "ours", "1,829.66", "1,435", "", ""),
)


def test_a_table_that_fits_is_one_table():
    assert text_tables(HEADINGS[:3], [line[:3] for line in LINES[:2]], 80) == (
        "case                candidate          ms\n"
        "------------------  -------------  ------\n"
        "resnet50, batch 16  ours           489.94\n"
        "                    torch.compile  389.65"
    )


def test_in_a_narrow_one_each_case_has_a_table_and_errors_are_below():
    assert text_tables(HEADINGS, LINES, 50) == (
        "resnet50, batch 16\n"
        "                                    ours\n"
        "                         memory,  faster\n"
        "  candidate          ms       MB      by\n"
        "  -------------  ------  -------  ------\n"
        "  ours           489.94      848\n"
        "  torch.compile  389.65    1,122    0.80\n"
        "  plain Flax\n"
        "\n"
        "  not measured:\n"
        "    plain Flax: out of memory out of memory out of\n"
        "      memory out of memory out of memory\n"
        "\n"
        "vgg16, batch 16\n"
        "                       memory,\n"
        "  candidate        ms       MB\n"
        "  ---------  --------  -------\n"
        "  ours       1,829.66    1,435"
    )


def test_columns_that_do_not_fit_continue_in_a_second_table():
    headings = ("reader", *(f"figure {i}" for i in range(6)))
    lines = [("a checkpoint", *["1,000,000"] * 6), ("shards", *["2"] * 6)]
    first, second = text_tables(headings, lines, 60).split("\n\n")
    for part, figures in ((first, 4), (second, 2)):
        assert [line.split()[0] for line in part.split("\n")][-2:] == ["a", "shards"]
        assert part.count("1,000,000") == figures
        assert max(map(len, part.split("\n"))) <= 60


@pytest.mark.parametrize("width", [40, 60, 80])
def test_long_names_wrap_and_lose_no_word(width):
    name = "inference: efficientnet_b0, batch 16, 224 px, float32"
    lines = [(name, "torch channels_last", "1,013.82", "0.90", "12%")]
    text = text_tables(("case", "candidate", "A ms", "B / A", "spread"), lines, width)
    assert max(map(len, text.split("\n"))) <= width
    assert {*name.split()[1:-1], "channels_last", *lines[0][2:]} <= {*text.split()}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs/measurements/performance").rglob("*.json")), ids=str
)
def test_measured_tables_fit_in_80_columns(path):
    rows = read(path).rows
    for name in {row["benchmark"] for row in rows}:
        module = importlib.import_module(f"benchmarks.{name}")
        own = [row for row in rows if row["benchmark"] == name]
        headings, lines = tabulate(own, module.COLUMNS)
        text = text_tables(headings, lines, 80)
        assert max(map(len, text.split("\n"))) <= 80
        assert all(line[0] in text for line in lines)
