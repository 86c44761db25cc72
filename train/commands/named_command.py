"""`named_command`: the command that a command line names, with its flags set."""

from collections.abc import Callable, Sequence
from functools import partial

from train import recipes
from train.commands.advise import Advise
from train.commands.calibrate import Calibrate
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
    "calibrate": Calibrate,
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
    if name in _COMMANDS:
        return parse(_COMMANDS[name], prog=f"{program} {name}", args=words[1:])
    if name not in recipes.names():
        raise recipes.no_recipe(name, [*_COMMANDS, "noisy-student", "plan"])
    recipe = recipes.load(name)
    if asks_for_help(words[1:]):
        return partial(print, short_help(recipe, program))
    return run_command(recipe, all_help(words[1:]), prog=program)
