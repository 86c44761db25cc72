import pytest

from benchmarks.compare import compare
from benchmarks.measurements import Measurements


def row(candidate, median, spread, **more):
    name = {"benchmark": "training", "case": "a", "candidate": candidate}
    return {**name, "median": median, "spread": spread, **more}


def test_what_is_further_apart_than_both_spreads_moved():
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
    found = compare(before, after)
    assert [move.name[2] for move in found.moved] == ["slower", "faster"]
    assert [move.ratio for move in found.moved] == [4.0, 0.75]
    assert found.still == 1
    assert [name[2] for name in found.lone] == ["gone", "new"]
    assert found.differing == ["jax: 1, 2"]


def test_what_has_no_time_is_not_compared():
    failed = {"benchmark": "training", "case": "a", "candidate": "b", "error": "no"}
    record = Measurements({}, [failed])
    found = compare(record, record)
    assert (found.moved, found.still, found.lone) == ([], 0, [])


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_record_does_not_move_from_itself_but_from_another(factor):
    record = Measurements({}, [row("a", 1.0, 0.0)])
    assert compare(record, record).still == 1
    other = Measurements({}, [row("a", factor, 0.0)])
    (move,) = compare(record, other).moved
    assert move.ratio == factor
