"""The page of the recipes: what each trains, on what, and what it gave."""

import re
import textwrap

from train import recipes
from train.recipes import Recipe

__all__ = ["recipe_section", "recipes_page"]

_HEAD = """# Recipes

`python -m train RECIPE --out DIR` runs one; every setting is a flag of the
[command line](cli/train.md#recipe). `python -m train` lists them."""


def recipes_page() -> str:
    """The page, from the recipes' docstrings and configurations."""
    sections = map(recipe_section, map(recipes.load, recipes.names()))
    return "\n\n".join([_HEAD, *sections]) + "\n"


def recipe_section(recipe: Recipe) -> str:
    """A recipe's section: title, figures, command, and the rest of its docstring."""
    title, _, text = recipe.text.strip().partition("\n\n")
    models = " > ".join(f"`{model}`" for model in recipe.models)
    config = recipe.config
    about = f"""| data | `{config.input.data}` |
| --- | --- |
| model | {models} |
| image size | {config.input.image_size} px |
| gave | {recipe.gave} |"""
    return f"## {recipe.name}\n\n{title}\n\n{about}\n\n{_with_fences(text)}"


def _with_fences(text: str) -> str:
    """The text with its indented blocks in fences, as commands where they are."""

    def fence(match: re.Match[str]) -> str:
        block = textwrap.dedent(match[0]).strip("\n")
        kind = "bash" if block.startswith("python") else "text"
        return f"```{kind}\n{block}\n```\n"

    return re.sub(r"(?:^ {4}.*\n?)+", fence, text, flags=re.MULTILINE).strip()
