"""The command line of a page that is made of experiments."""

import argparse
from collections.abc import Iterable
from types import ModuleType

__all__ = ["page_parser"]


def page_parser(
    page: ModuleType, experiments: Iterable[str]
) -> argparse.ArgumentParser:
    """A parser of `--measure [EXPERIMENT ...]`, which is None where it is not given.

    Args:
      page: the page's package; its docstring tells of it.
      experiments: what can be measured.
    """
    names = list(experiments)
    parser = argparse.ArgumentParser(
        prog=f"python -m {page.__name__}", description=page.__doc__
    )
    parser.add_argument(
        "--measure",
        nargs="*",
        choices=names,
        metavar="EXPERIMENT",
        help=f"train again first: {', '.join(names)}; all of them without a name",
    )
    return parser
