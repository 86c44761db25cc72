"""`named_command`: the command that a command line names, with its flags set."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Union

import tyro

from train import recipes
from train.commands.advise import Advise
from train.commands.compare import Compare
from train.commands.evaluate import Evaluate
from train.commands.noisy_student import noisy_student_command
from train.commands.parsing import parse
from train.commands.plan import plan_command
from train.commands.predict import Predict
from train.commands.pseudo_label import PseudoLabel
from train.commands.run import run_command
from train.commands.search_scaling import SearchScaling
from train.commands.short_help import all_help, asks_for_help, short_help
from train.console import program_name

__all__ = ["named_command"]

_COMMANDS = {
    "advise": Advise,
    "compare": Compare,
    "evaluate": Evaluate,
    "predict": Predict,
    "pseudo-label": PseudoLabel,
    "search-scaling": SearchScaling,
}


def named_command(words: Sequence[str], command_line: str) -> Callable[[], None]:
    """The command that a command line names, with its flags set.

    Args:
      words: the command line's words, the first of which names a command or a recipe.
      command_line: the whole command line, as messages repeat it.

    Raises:
      UserError: if there is no such command or recipe, or a flag does not fit.
    """
    program, name = program_name(), words[0]
    if name == "noisy-student":
        return noisy_student_command(words[1:], command_line, prog=program)
    if name == "plan":
        return plan_command(words[1:], prog=program)
    forms: list[Any] = [
        Annotated[form, tyro.conf.subcommand(name)] for name, form in _COMMANDS.items()
    ]
    # The named recipe alone, so that suggestions are from its flags.
    if name in recipes.names():
        recipe = recipes.load(name)
        forms.append(run_command(recipe))
        if asks_for_help(words[1:]):
            return partial(print, short_help(recipe, program))
        words = all_help(words)
    elif name not in _COMMANDS:
        raise recipes.no_recipe(name, [*_COMMANDS, "noisy-student", "plan"])
    form: Any = Union[tuple(forms)]  # noqa: UP007
    return parse(form, prog=program, args=words)
