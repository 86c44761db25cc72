"""`python -m train RECIPE`: runs a recipe, or resumes a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Suppress

from train.api.training import fit
from train.commands.parsing import parse
from train.compilation_cache import use_compilation_cache
from train.config import Config
from train.console import program_name
from train.errors import UserError
from train.hosts import is_leader, joined
from train.joining import Hosts
from train.recipes import Recipe

__all__ = ["Run", "run_command"]


@dataclass(frozen=True)
class Run:
    """Runs a recipe, or resumes a run."""

    out: Path
    """Folder of the run: a new one, or that of the run to resume."""
    dry_run: bool
    """Build and compile everything and print its cost, without training or writing
    anything."""
    config: Annotated[Config, OmitArgPrefixes]
    """What to run."""
    extend: bool = False
    """Train the run in the folder for more epochs than it began with: give the new
    number as --epochs. The schedule then spans all of them."""
    hosts: Annotated[Hosts, OmitArgPrefixes] = Hosts()
    """Which processes it runs on."""
    recipe: Suppress[str] = ""

    def __call__(self) -> None:
        """Runs the command."""
        if self.dry_run:
            if self.hosts.coordinator:
                raise UserError(
                    "--dry-run is for one process: leave out --coordinator."
                )
            from train.commands.dry_run import dry_run
            from train.data.select import check_output

            check_output(self.config, self.out)
            return dry_run(self.config, self.recipe, Console())
        use_compilation_cache()
        with joined(self.hosts):
            quiet = bool(self.hosts.coordinator) and not is_leader()
            result = fit(
                self.config,
                self.out,
                recipe=self.recipe,
                extend=self.extend,
                quiet=quiet,
            )
            Console(quiet=quiet).print(result.table())


def run_command(
    recipe: Recipe, words: Sequence[str], *, prog: str
) -> Callable[[], None]:
    """Parses what follows a recipe on the command line.

    Args:
      recipe: the recipe.
      words: its flags.
      prog: name of the program, for the usage line.

    Returns:
      The command, with its flags set.

    Raises:
      UserError: if a flag does not fit, or the recipe is a Noisy Student, which has a
        command of its own.
    """
    if recipe.noisy_student:
        raise UserError(
            f"{recipe.name} is a Noisy Student: run it with "
            f"`{program_name()} noisy-student {recipe.name}`."
        )
    default = Run(Path("runs", recipe.name), False, recipe.config, recipe=recipe.name)
    return parse(
        Run,
        prog=f"{prog} {recipe.name}",
        args=words,
        default=default,
        description=recipe.text,
    )
