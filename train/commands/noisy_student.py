"""`python -m train noisy-student`: self-training in rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Suppress

from train import recipes
from train.api.self_training import self_train
from train.commands.parsing import parse
from train.commands.short_help import all_help, asks_for_help, short_help
from train.compilation_cache import use_compilation_cache
from train.console import program_name
from train.errors import UserError
from train.noisy_student import NoisyStudent

__all__ = ["RunNoisyStudent", "noisy_student_command"]


@dataclass(frozen=True)
class RunNoisyStudent:
    """Labels images with a model and trains the next model on them, in rounds."""

    out: Path
    """Folder of the Noisy Student: a new one, or that of one to resume."""
    dry_run: bool
    """Build every model and print its cost, without training or writing anything."""
    student: Annotated[NoisyStudent, OmitArgPrefixes]
    """What to run."""
    recipe: Suppress[str] = ""
    command_line: Suppress[str] = ""

    def __call__(self) -> None:
        """Runs the command."""
        if self.dry_run:
            from train.data.select import check_output
            from train.noisy_student.dry_run import dry_run

            check_output(self.student.config, self.out)
            return dry_run(self.student, self.recipe, Console())
        use_compilation_cache()
        result = self_train(
            self.student, self.out, recipe=self.recipe, command=self.command_line
        )
        Console().print(result.table())


def noisy_student_command(
    words: Sequence[str], command_line: str, *, prog: str
) -> Callable[[], None]:
    """Parses what follows `noisy-student` on the command line.

    Args:
      words: the recipe and its flags.
      command_line: the full command line, for the report.
      prog: name of the program, for the usage line.

    Returns:
      The command, with its flags set.

    Raises:
      UserError: if the recipe is missing, or is not a Noisy Student.
    """
    by_name = {name: recipes.load(name) for name in recipes.names()}
    students = [recipe for recipe in by_name.values() if recipe.noisy_student]
    names = ", ".join(recipe.name for recipe in students)
    prog = f"{prog} noisy-student"
    if not words:
        raise UserError(
            f"Name a recipe: {prog} RECIPE --out DIR [--FLAG ..]; recipes: {names}."
        )
    if words[0] in ("-h", "--help", "--help-all"):
        return partial(print, _help(students, prog))
    if words[0] not in by_name:
        raise recipes.no_recipe(words[0])
    if by_name[words[0]] not in students:
        raise UserError(
            f"{words[0]} is not a Noisy Student: run it with `{program_name()} "
            f"{words[0]}`. The Noisy Students are: {names}."
        )
    if asks_for_help(words[1:]):
        return partial(print, short_help(by_name[words[0]], prog))
    recipe = by_name[words[0]]
    assert recipe.noisy_student is not None
    out, student = Path("runs", recipe.name), recipe.noisy_student
    return parse(
        RunNoisyStudent,
        prog=f"{prog} {recipe.name}",
        args=all_help(words[1:]),
        default=RunNoisyStudent(out, False, student, recipe.name, command_line),
        description=recipe.text,
    )


def _help(students: Sequence[recipes.Recipe], prog: str) -> str:
    """The help of the command: its recipes, and where their flags are."""
    lines = [
        f"usage: {prog} RECIPE [--out DIR] [--FLAG VALUE ...]",
        "",
        "Trains a model, labels images with it, and trains the next model on them, in",
        "rounds. The same command resumes after it was stopped.",
        "",
        "Recipes:",
    ]
    for recipe in students:
        title = recipe.text.strip().partition("\n")[0]
        lines += [f"  {recipe.name}", f"      {title}"]
    return "\n".join([*lines, "", f"Flags: {prog} RECIPE --help"])
