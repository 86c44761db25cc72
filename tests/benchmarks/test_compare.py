import pytest

from benchmarks.compare import compare
from benchmarks.measurements import Measurements


def row(candidate, median, spread, **more):
    name = {"benchmark": "training", "case": "a", "candidate": candidate}
    return {**name, "median": median, "spread": spread, **more}


def test_a_difference_above_the_sum_of_both_spreads_is_a_change():
    before = Measurements(
        {"jax": "1", "device": "d"},
        [
            row("faster", 2.0, 0.10),
            row("slower", 2.0, 0.10),
            row("within", 2.0, 0.10),
            row("gone", 2.0, 0.1),
        ],
    )
    after = Measurements(
        {"jax": "2", "device": "d"},
        [
            # 0.5 apart, and the spreads are 0.2 and 0.15.
            row("faster", 1.5, 0.10),
            row("slower", 8.0, 0.10),
            # 0.4 apart, and the spreads are 0.2 and 0.24.
            row("within", 2.4, 0.10),
            row("new", 2.0, 0.1),
        ],
    )
    comparison = compare(before, after)
    assert [change.name[2] for change in comparison.changed] == ["slower", "faster"]
    assert [change.ratio for change in comparison.changed] == [4.0, 0.75]
    assert comparison.unchanged == 1
    assert [name[2] for name in comparison.only_in_one] == ["gone", "new"]
    assert comparison.differing == ["jax: 1, 2"]


def test_rows_without_a_time_are_not_compared():
    failed = {"benchmark": "training", "case": "a", "candidate": "b", "error": "no"}
    measurements = Measurements({}, [failed])
    comparison = compare(measurements, measurements)
    assert (comparison.changed, comparison.unchanged, comparison.only_in_one) == (
        [],
        0,
        [],
    )


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_file_has_no_change_to_itself_but_to_another(factor):
    measurements = Measurements({}, [row("a", 1.0, 0.0)])
    assert compare(measurements, measurements).unchanged == 1
    other = Measurements({}, [row("a", factor, 0.0)])
    (change,) = compare(measurements, other).changed
    assert change.ratio == factor
