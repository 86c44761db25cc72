"""The recipes: short modules that say what to run, how, and what it gave."""

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass

from train.config import Config
from train.errors import UserError
from train.noisy_student import NoisyStudent, teacher_config

__all__ = ["Recipe", "load", "names", "no_recipe"]


@dataclass(frozen=True)
class Recipe:
    """A recipe, as its module states it.

    Attributes:
      name: the module's.
      config: the run, or that of the first model.
      gave: the accuracy that it reached, and on what, or that it was not run.
      text: the module's docstring.
      noisy_student: the rounds, if it is a Noisy Student rather than a single run.
    """

    name: str
    config: Config
    gave: str
    text: str
    noisy_student: NoisyStudent | None = None

    @property
    def models(self) -> list[str]:
        """Names of its models."""
        student = self.noisy_student
        return student.models if student else [self.config.network.model]


def names() -> list[str]:
    """Sorted names of all recipes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Recipe:
    """Loads a recipe, one of `names()`."""
    module = importlib.import_module(f"{__name__}.{name}")
    student = getattr(module, "noisy_student", None)
    config = teacher_config(student) if student else module.config
    return Recipe(name, config, module.gave, module.__doc__ or "", student)


def no_recipe(name: str, commands: Sequence[str] = ()) -> UserError:
    """The error for a name that is no recipe.

    Args:
      name: what was asked for.
      commands: other words that may have been meant.
    """
    near = difflib.get_close_matches(name, [*commands, *names()], n=1, cutoff=0.3)
    hint = f"Did you mean {near[0]}? " if near else ""
    return UserError(
        f"There is no recipe {name!r}. {hint}`python -m train` lists them."
    )
