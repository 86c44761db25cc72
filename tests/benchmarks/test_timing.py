import jax.numpy as jnp
import pytest

from benchmarks.timing import Timing, alternate, take_turns


def test_candidates_take_turns():
    order = []

    def candidate(name):
        def function():
            order.append(name)
            return jnp.zeros(())

        return function

    timings = alternate(
        {name: candidate(name) for name in "ab"}, blocks=3, block_seconds=0.0
    )
    # Two calls per candidate to compile and warm up, then block by block: one that is
    # not timed and one that is.
    assert "".join(order) == "aabb" + "aabb" * 3
    assert {name: len(t.seconds) for name, t in timings.items()} == {"a": 3, "b": 3}


def test_median_and_spread_by_hand():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 10.0))
    assert timing.median == 3.0
    assert timing.spread == pytest.approx((4 - 2) / 2 / 3)


def test_a_slow_candidate_has_three_turns_and_a_fast_one_many_calls():
    calls_of = {"slow": [], "fast": []}

    def work(name, seconds):
        def function(calls):
            calls_of[name].append(calls)
            return calls * seconds

        return function

    candidates = {"slow": work("slow", 20.0), "fast": work("fast", 0.25)}
    timings = take_turns(candidates, blocks=5, block_seconds=1.0)
    assert calls_of == {"slow": [1, 1] + [1, 1] * 3, "fast": [1, 1] + [1, 4] * 5}
    assert timings["slow"].seconds == (20.0,) * 3
    assert timings["fast"].seconds == (0.25,) * 5
