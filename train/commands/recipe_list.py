"""The list of recipes that `python -m train` prints, by what they train on."""

import textwrap
from collections.abc import Iterable

from train.recipes import Recipe

__all__ = ["recipe_list"]

_GROUPS = {
    "Your own images": lambda recipe: recipe.config.input.data.startswith("folder:"),
    "A model's own labels, in rounds: noisy-student RECIPE": lambda recipe: (
        recipe.noisy_student is not None
    ),
    "Small sets: minutes on a CPU": lambda recipe: recipe.config.input.data.startswith(
        ("digits", "idx:")
    ),
    "Large sets": lambda recipe: True,
}
_WIDTH = 80
_INDENT = " " * 6


def recipe_list(recipes: Iterable[Recipe]) -> str:
    """The recipes in groups, at most 80 columns wide: what each is, and what it gave.

    Args:
      recipes: the recipes; each is in the first group that it fits.
    """
    left, lines = list(recipes), []
    for title, belongs in _GROUPS.items():
        lines += ["", f"{title}:"]
        for recipe in filter(belongs, left):
            what = recipe.text.strip().partition("\n")[0].removesuffix(".")
            gave = recipe.gave
            result = f"N{gave[1:]}" if gave.startswith("not run") else f"Gave {gave}"
            text = f"{what}. {result}."
            wrapped = textwrap.wrap(text, _WIDTH - len(_INDENT))
            lines += [f"  {recipe.name}", *(_INDENT + line for line in wrapped)]
        left = [recipe for recipe in left if not belongs(recipe)]
    return "\n".join(lines[1:])
