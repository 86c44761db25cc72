"""The short help of a recipe: the flags that people use, grouped by purpose."""

import ast
import inspect
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from train.config import Config, Policy
from train.config_file import flag_values
from train.noisy_student import NoisyStudent
from train.noisy_student.plan import settings
from train.recipes import Recipe

__all__ = ["all_help", "asks_for_help", "short_help"]

_GROUPS = {
    "Images": ("data", "image_size", "batch_size"),
    "Model": ("model", "model_fields", "init", "dtype"),
    "Training": ("epochs", "learning_rate", "flip", "policy"),
}
_ROUNDS = {"Rounds": ("students", "labels_per_class", "unlabelled", "finetune_size")}
_METAVARS = {
    "data": "SOURCE",
    "model_fields": "NAME=VALUE ...",
    "students": "MODEL [NAME=VALUE ...] ...",
    "unlabelled": "SOURCE",
}
_CHOICES = {
    "dtype": "float32, bfloat16, float64",
    "policy": ", ".join(get_args(Policy)),
}
_RUN = {
    "--seed N": "Seed of everything that is random.",
    "--dry-run": "Build and compile everything and print its cost; train nothing.",
}
_EXTEND = {"--extend": "Train a run that has ended for more --epochs."}
_WIDTH = 88
_INDENT = 26


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether the words after a recipe's name ask for its short help."""
    return "-h" in words or "--help" in words


def all_help(words: Sequence[str]) -> list[str]:
    """The words with `--help-all` as the flag that tyro prints all flags for."""
    return ["--help" if word == "--help-all" else word for word in words]


def short_help(recipe: Recipe, prog: str) -> str:
    """The help of a recipe, with a dozen of its flags.

    Args:
      recipe: the recipe.
      prog: what is before the recipe's name on the command line.
    """
    values, groups, run = flag_values(recipe.config), _GROUPS, _RUN | _EXTEND
    texts = _texts(Config)
    if recipe.noisy_student:
        values, groups, run = settings(recipe.noisy_student), _GROUPS | _ROUNDS, _RUN
        texts = _texts(NoisyStudent) | texts
    out = "Folder of the run: a new one, or that of the run to resume."
    run = {"--out DIR": f"{out} (default: runs/{recipe.name})", **run}
    width = min(_WIDTH, shutil.get_terminal_size().columns)
    lines = [f"usage: {prog} {recipe.name} [--FLAG VALUE ...]", "", recipe.text.strip()]
    for group, names in groups.items():
        lines += ["", f"{group}:"]
        for name in names:
            flag = (
                f"--{name.replace('_', '-')} {_METAVARS.get(name, _kind(values, name))}"
            )
            choices = f"One of {_CHOICES[name]}. " if name in _CHOICES else ""
            text = f"{texts[name]} {choices}(default: {_shown(values[name])})"
            lines += _row(flag, text, width)
    lines += ["", "Run:"]
    for flag, text in run.items():
        lines += _row(flag, text, width)
    command = f"{prog} {recipe.name} --help-all"
    return "\n".join([*lines, "", f"All {len(values)} flags: {command}"])


def _kind(values: Mapping[str, Any], name: str) -> str:
    match values[name]:
        case int():
            return "N"
        case float():
            return "X"
    return "NAME" if name in ("model", "policy", "dtype") else "WEIGHTS"


def _shown(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, dict):
        plain = {k: tuple(x) if isinstance(x, list) else x for k, x in value.items()}
        value = [f"{name}={x}".replace(" ", "") for name, x in plain.items()]
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    return "none" if value == "" else str(value)


def _row(flag: str, text: str, width: int) -> list[str]:
    """A flag, and its text in a column of its own."""
    indent = " " * _INDENT
    lines = textwrap.wrap(text, max(width - _INDENT, 30), break_on_hyphens=False)
    head = f"  {flag}"
    if len(head) > _INDENT - 2:
        return [head, *(indent + line for line in lines)]
    return [f"{head:<{_INDENT}}{lines[0]}", *(indent + line for line in lines[1:])]


def _texts(cls: type) -> dict[str, str]:
    """The docstring of each field of a class and of its groups, by the field's name."""
    module = ast.parse(inspect.getsource(inspect.getmodule(cls)))  # pyright: ignore
    texts = {}
    for node in ast.walk(module):
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, text in zip(body, body[1:], strict=False):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(words))),
                ):
                    texts[name] = " ".join(words.split())
    return texts
