"""Recipes: short modules, each with a config, its command and its result."""

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass

from train.config import Config
from train.console import program_name
from train.errors import UserError
from train.noisy_student import NoisyStudent, teacher_config

__all__ = ["Recipe", "load", "names", "no_recipe"]


@dataclass(frozen=True)
class Recipe:
    """The contents of a recipe's module.

    Attributes:
      name: name of the module.
      config: config of the run, or of a Noisy Student's teacher.
      gave: the accuracy that it reached, or that it was not run.
      text: docstring of the module.
      noisy_student: the Noisy Student, if it is one rather than a single run.
    """

    name: str
    config: Config
    gave: str
    text: str
    noisy_student: NoisyStudent | None = None

    @property
    def models(self) -> list[str]:
        """Names of the models."""
        student = self.noisy_student
        return student.models if student else [self.config.network.model]


def names() -> list[str]:
    """Sorted names of all recipes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Recipe:
    """Loads the recipe of that name, one of `names()`."""
    module = importlib.import_module(f"{__name__}.{name}")
    student = getattr(module, "noisy_student", None)
    config = teacher_config(student) if student else module.config
    return Recipe(name, config, module.gave, module.__doc__ or "", student)


def no_recipe(name: str, commands: Sequence[str] = ()) -> UserError:
    """The error for an unknown recipe.

    Args:
      name: the unknown name.
      commands: commands that may have been meant instead.
    """
    near = difflib.get_close_matches(name, [*commands, *names()], n=1, cutoff=0.3)
    hint = f"Did you mean {near[0]}? " if near else ""
    return UserError(
        f"There is no recipe {name!r}. {hint}`{program_name()}` lists them."
    )
