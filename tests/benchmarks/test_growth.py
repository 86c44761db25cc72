import pytest

from benchmarks.growth import exponent


def test_the_exponent_is_the_slope_in_the_logarithms():
    sizes = (64, 96, 128, 192)
    assert exponent(sizes, [3 * n**2 for n in sizes]) == pytest.approx(2)
    assert exponent(sizes, [5.0] * 4) == pytest.approx(0)
    # By hand: log 1, 2, 4 against log 1, 2, 16 is 0, 1, 2 against 0, 1, 4: slope 2.
    assert exponent([1, 2, 4], [1, 2, 16]) == pytest.approx(2)
