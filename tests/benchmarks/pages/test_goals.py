import pytest

from benchmarks.measurements import Measurements
from benchmarks.networks import CANDIDATES
from benchmarks.pages.goals import CPU, GPU, Goal, goal_lines

ROWS = [
    {"benchmark": "training", "case": "net, batch 8, 64 px", "candidate": c, **figures}
    for c, figures in {
        "ours": {"median": 2.0, "share": 0.2},
        "a": {"median": 3.0},
        "b": {"median": 5.0},
        "c": {"error": "There is none."},
    }.items()
]


def line(case="net, ", peers=("a",), required=1.0, runs=(ROWS,), **fields):
    goal = Goal("net", "training", case, peers, required, **fields)
    (cells,) = goal_lines([goal], [Measurements({}, rows) for rows in runs])
    return cells


@pytest.mark.parametrize(
    ("fields", "measured", "reached"),
    [
        ({"target": 1.5}, "1.50", "target"),
        ({"target": 2.0}, "1.50", "required"),
        ({}, "1.50", "required"),
        ({"required": 1.6}, "1.50", "short"),
        # The fastest peer counts, of those that were measured.
        ({"peers": ("b", "c", "a")}, "1.50", "required"),
        ({"peers": ("c",)}, "not measured", ""),
        ({"case": "another, "}, "not measured", ""),
    ],
)
def test_a_goal_is_compared_with_the_rows(fields, measured, reached):
    assert line(**fields)[-2:] == [measured, reached]


def test_the_faster_of_ours_counts():
    parts = {**ROWS[0], "candidate": "ours in parts", "median": 1.5}
    assert line(runs=([*ROWS, parts],))[-2] == "2.00"
    assert line(runs=([*ROWS, {**parts, "median": 9.0}],))[-2] == "1.50"


def test_a_figure_comes_from_one_run_in_which_both_took_turns():
    faster = {**ROWS[0], "median": 1.0}
    assert line(runs=([faster], ROWS))[-2] == "1.50"
    assert line(runs=([faster], ROWS[1:]))[-2] == "not measured"


def test_the_best_run_counts_where_no_peer_is_compared():
    runs = [[{**ROWS[0], "median": m}] for m in (2.0, 4.0, 3.0)]
    fields = {"peers": (), "value": lambda case: case["ours"]["median"], "runs": runs}
    assert line(**fields)[-2] == "2.00"
    assert line(**fields, best=True)[-2] == "4.00"
    assert line(**fields, best=True, is_cost=True)[-2] == "2.00"
    assert line(**{**fields, "runs": [[]]}, best=True)[-2] == "not measured"


@pytest.mark.parametrize(
    ("required", "target", "reached"),
    [(0.2, 0.1, "required"), (0.3, 0.2, "target"), (0.1, None, "short")],
)
def test_less_of_a_cost_is_better(required, target, reached):
    cells = line(
        peers=(),
        required=required,
        target=target,
        value=lambda case: case["ours"]["share"],
        form=".0%",
        is_cost=True,
    )
    assert cells[-2:] == ["20%", reached]


def test_the_goals_name_what_the_suite_measures():
    networks = [g for g in CPU + GPU if g.benchmark in ("inference", "training")]
    assert len(networks) == 16
    for goal in networks:
        assert set(goal.peers) <= set(CANDIDATES)
