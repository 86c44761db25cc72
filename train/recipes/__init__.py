"""The recipes: each a short module that says what to run, how, and what it gave."""

import importlib
import pkgutil
from dataclasses import dataclass

from train.config import Config

__all__ = ["Recipe", "load", "names"]


@dataclass(frozen=True)
class Recipe:
    """A recipe, as its module states it.

    Attributes:
      name: the module's.
      config: what it runs.
      gave: the accuracy that it gave, and on what, or that it was not run.
      text: the module's docstring.
    """

    name: str
    config: Config
    gave: str
    text: str


def names() -> list[str]:
    """Sorted names of all recipes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Recipe:
    """The recipe of that name, one of `names()`."""
    module = importlib.import_module(f"{__name__}.{name}")
    return Recipe(name, module.config, module.gave, module.__doc__ or "")
