"""The recipes: each a short module that says what to run, how, and what it gave."""

import importlib
import pkgutil
from dataclasses import dataclass

from train.config import Config
from train.noisy_student import NoisyStudent, teacher_config

__all__ = ["Recipe", "load", "names"]


@dataclass(frozen=True)
class Recipe:
    """A recipe, as its module states it.

    Attributes:
      name: the module's.
      config: what it runs, or its first model.
      gave: the accuracy that it gave, and on what, or that it was not run.
      text: the module's docstring.
      noisy_student: the rounds that it is, where it is no single run.
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
    """The recipe of that name, one of `names()`."""
    module = importlib.import_module(f"{__name__}.{name}")
    student = getattr(module, "noisy_student", None)
    config = teacher_config(student) if student else module.config
    return Recipe(name, config, module.gave, module.__doc__ or "", student)
