"""`python -m train noisy-student`: trains on a model's own labels, in rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes, Suppress

from train import recipes
from train.commands.run import silence_orbax
from train.compilation_cache import use_compilation_cache
from train.errors import UserError
from train.noisy_student import NoisyStudent

__all__ = ["RunNoisyStudent", "noisy_student_command"]


@dataclass(frozen=True)
class RunNoisyStudent:
    """Labels images with a model and trains the next one on them, round after round."""

    out: Path
    """Folder of all rounds: a new one, or that of the rounds to resume."""
    dry_run: bool
    """Build every model and print its cost; train and write nothing."""
    student: Annotated[NoisyStudent, OmitArgPrefixes]
    """What to run."""
    recipe: Suppress[str] = ""
    command_line: Suppress[str] = ""

    def __call__(self) -> None:
        """Runs the command."""
        if self.dry_run:
            from train.noisy_student.dry_run import dry_run

            return dry_run(self.student, self.recipe, Console())
        use_compilation_cache()
        silence_orbax()
        from train.noisy_student.run import run
        from train.noisy_student.table import noisy_student_table

        summary = run(
            self.student, self.out, recipe=self.recipe, command=self.command_line
        )
        Console().print(noisy_student_table(summary))


def noisy_student_command(
    words: Sequence[str], command_line: str, *, prog: str
) -> Callable[[], None]:
    """The command that the words after `noisy-student` name, with its flags set.

    Args:
      words: the recipe, and flags.
      command_line: the full command line, for the report.
      prog: the program, for usage.

    Raises:
      UserError: if the words name no Noisy Student.
    """
    known = {name: recipes.load(name) for name in recipes.names()}
    students = [recipe for recipe in known.values() if recipe.noisy_student]
    names = ", ".join(recipe.name for recipe in students)
    usage = f"noisy-student RECIPE --out DIR [--FLAG ..]; recipes: {names}"
    if not words:
        raise UserError(f"Say which: {prog} {usage}.")
    if words[0] in ("-h", "--help"):
        return lambda: print(f"{prog} {usage}")
    if words[0] not in known:
        raise recipes.no_recipe(words[0])
    if known[words[0]] not in students:
        raise UserError(
            f"{words[0]} is no Noisy Student: `{prog} {words[0]}` runs it. These are: "
            f"{names}."
        )
    forms = tuple(_form(recipe, command_line) for recipe in students)
    form: Any = Union[forms]  # noqa: UP007
    return tyro.cli(form, prog=f"{prog} noisy-student", args=words)


def _form(recipe: recipes.Recipe, command_line: str) -> Any:
    assert recipe.noisy_student is not None
    default = RunNoisyStudent(
        Path("runs", recipe.name),
        False,
        recipe.noisy_student,
        recipe.name,
        command_line,
    )
    return Annotated[
        RunNoisyStudent,
        tyro.conf.subcommand(recipe.name, default=default, description=recipe.text),
    ]
