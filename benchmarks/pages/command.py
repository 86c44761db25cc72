"""The command line of a page whose figures are experiments."""

import argparse
from collections.abc import Iterable
from types import ModuleType

__all__ = ["page_parser"]


def page_parser(
    page: ModuleType, experiments: Iterable[str]
) -> argparse.ArgumentParser:
    """Returns a parser with the flag `--measure [EXPERIMENT ...]`, by default None.

    Args:
      page: the page's package; its docstring is the description.
      experiments: names that the flag takes.
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
        help=f"train again first: {', '.join(names)}; without a name, all of them",
    )
    return parser
