from tests.train.conftest import quiet, tiny, undrawn

__all__ = ["quiet", "tiny", "undrawn"]


def pytest_addoption(parser):
    group = parser.getgroup("faults", "tests/faults; only where pytest is given a path")
    group.addoption(
        "--kill-points",
        type=int,
        default=None,
        metavar="N",
        help="how often test_kills.py kills a process (default: 6)",
    )
    group.addoption(
        "--kill-seed",
        type=int,
        default=None,
        metavar="S",
        help="the seed that these points are drawn from (default: 0)",
    )
