import pytest

from train.run.largest_batch import largest_that_fits


@pytest.mark.parametrize("capacity", [90, 137, 1_000, 54_321])
@pytest.mark.parametrize("start", [1, 7, 64])
@pytest.mark.parametrize("curve", [0.0, 0.002])
def test_the_search_brackets_what_fits(capacity, start, curve):
    def memory(size):
        return 40 + 3 * size + int(curve * size**2)

    tried = []

    def needs(size):
        tried.append(size)
        return memory(size) if memory(size) <= capacity else None

    fits, exceeds, calls = largest_that_fits(needs, start, 10**6, capacity)
    assert memory(fits) <= capacity < memory(exceeds)
    assert exceeds - fits <= max(1, exceeds / 16)
    assert calls == len(tried) == len(set(tried)) <= 14


def test_a_linear_need_takes_four_probes():
    tried = []

    def needs(size):
        tried.append(size)
        return 500 + 10 * size if 500 + 10 * size <= 16_000 else None

    fits, exceeds, _ = largest_that_fits(needs, 100, 10**6, 16_000)
    # 100 and 200 give the line, one probe is above its estimate, one at it.
    assert (fits, exceeds, len(tried)) == (1550, 1599, 4)


def test_nothing_fits_or_everything_does():
    assert largest_that_fits(lambda size: None, 12, 100, 1)[:2] == (0, 1)
    assert largest_that_fits(lambda size: size, 12, 100, 10**9)[:2] == (100, 0)
