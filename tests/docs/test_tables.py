import math

import pytest

from cnn_flax.analysis.receptive_field import pixels
from docs.tables import millions, spread, table


def test_columns_of_numbers_are_set_to_the_right():
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


def test_a_spread_has_mean_and_range():
    assert spread([1.0, 2.0, 4.5], ".1f") == "2.5 (1.0 to 4.5)"
