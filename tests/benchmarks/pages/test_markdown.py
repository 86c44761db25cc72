import math

import pytest

from benchmarks.pages.markdown import mean_and_range, millions, percent_range, table
from cnn_flax.analysis.receptive_field import pixels


def test_columns_of_numbers_are_aligned_right():
    assert table(("net", "gain"), [("a", "+1 %"), ("b", "")]) == (
        "| net | gain |\n| --- | ---: |\n| a | +1 % |\n| b |  |"
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (7_978_856, "7.98 M"),
        (25_557_032, "25.6 M"),
        (385_814_752, "385.8 M"),
        (4_089_184_256, "4,089 M"),
    ],
)
def test_millions_have_three_or_four_digits(number, text):
    assert millions(number) == text


def test_a_fields_size_is_named_once_where_it_is_the_same():
    assert pixels((43, 43)) == "43"
    assert pixels((43, 51)) == "43 x 51"
    assert pixels((math.inf, math.inf)) == "infinite"


def test_a_range_follows_its_mean():
    assert mean_and_range([1.0, 2.0, 4.5], ".1f") == "2.5 (1.0 to 4.5)"
    assert mean_and_range([-1.0, 2.0], "+.1f", " nats") == "+0.5 nats (-1.0 to +2.0)"


def test_shares_are_shown_in_percent_with_their_range():
    assert percent_range([0.85, 0.852, 0.8471]) == "85.0 % (84.7 to 85.2)"
