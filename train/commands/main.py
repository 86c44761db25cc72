"""The command line of `python -m train`.

python -m train                           list the recipes
python -m train RECIPE [--out DIR] [..]   run a recipe, or resume the run in DIR
python -m train RECIPE --help             its flags; --help-all: all of them
python -m train evaluate DIR [--data ..]  evaluate a run
python -m train evaluate MODEL --data ..  evaluate published weights, or a file
python -m train calibrate DIR             fit its probabilities' temperature
python -m train compare DIR DIR ..        show several runs on one page
python -m train predict DIR IMAGE ..      classify images with a run
python -m train pseudo-label DIR --data ..
                                          label images with a run, into a file
python -m train advise --data .. --init ..
                                          recommend how to transfer weights
python -m train plan RECIPE --topology v5e:4x8
                                          a run's cost on absent chips
python -m train search-scaling RECIPE     search EfficientNet's coefficients
python -m train noisy-student RECIPE      train on a model's own labels

With --debug, each prints the traceback of an error too.
"""

import contextlib
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from rich.console import Console

from train import recipes
from train.commands.recipe_list import recipe_list
from train.console import (
    escape_what_cannot_be_encoded,
    program_called,
    program_name,
    say,
)
from train.errors import Interrupted, NotFiniteError, StorageError, UserError
from train.extras import missing_extra
from train.hosts import has_failed

__all__ = ["leave", "main"]

_PROGRAM = "python -m train"
_DEBUG = "--debug"


def main(arguments: Sequence[str] | None = None, program: str = _PROGRAM) -> int:
    """Runs a command line, by default this process's; returns its exit code.

    `program` is what the user called it by, which the messages repeat.

    0: success. 1: a loss or gradient was not finite, the disk filled up, or another
    process of the run failed. 2: the request cannot be fulfilled. 128 plus a signal's
    number: stopped by that signal.
    """
    try:
        with program_called(program):
            code = _run(arguments)
    except Exception:
        if not has_failed():
            raise
        traceback.print_exc()
        code = 1
    if has_failed():  # A regular exit would wait for the other processes.
        _end(code)
    return code


def leave(code: int) -> NoReturn:
    """Ends the process with an exit code of `main`.

    After an error it does not wait for threads: one that saves into a folder that is
    gone may never end. Saves that can end have ended.
    """
    if code in (1, 2):
        _end(code)
    sys.exit(code)


def _end(code: int) -> NoReturn:
    """Ends the process without waiting for anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    """Runs a command line, and reports its errors in one line."""
    program = program_name()
    escape_what_cannot_be_encoded()
    words = list(sys.argv[1:] if arguments is None else arguments)
    command_line = f"{program} {shlex.join(words)}"
    shows_tracebacks = _DEBUG in words
    words = [word for word in words if word != _DEBUG]
    try:
        if sys.platform == "win32":
            raise UserError(f"{program} runs on Linux and macOS; on Windows, in WSL 2.")
        with _tracebacks() if shows_tracebacks else contextlib.nullcontext():
            _parse(words, command_line)()
    except Interrupted as stop:
        _complain(f"{stop} It is saved; to resume: {command_line}")
        return 128 + stop.signal
    except KeyboardInterrupt:
        _complain(f"Stopped. To resume from what was saved: {command_line}")
        return 130
    except NotFiniteError as error:
        _complain(" ".join([str(error), *error.__notes__]))
        return 1
    except StorageError as error:
        _complain(f"{error} {error.advice}; to resume: {command_line}")
        return 1
    except ModuleNotFoundError as error:
        if (message := missing_extra(error)) is None:
            raise
        _complain(message)
        return 2
    except ValueError as error:
        if not isinstance(error, (UserError, *_library_errors())):
            raise
        _complain(str(error))
        return 2
    return 0


@contextlib.contextmanager
def _tracebacks() -> Iterator[None]:
    """Prints the traceback of an error that is then reported in one line."""
    try:
        yield
    except Exception:
        traceback.print_exc()
        raise


def _parse(words: Sequence[str], command_line: str) -> Callable[[], None]:
    """The command that a command line names, with its flags set."""
    if (words[0] if words else "--help") in ("-h", "--help"):
        return _list_recipes
    # Its imports take longer than listing the recipes.
    from train.commands.named_command import named_command

    return named_command(words, command_line)


def _list_recipes() -> None:
    print(str(__doc__).partition("\n\n")[2].replace(_PROGRAM, program_name()))
    print(recipe_list(map(recipes.load, recipes.names())))


def _library_errors() -> tuple[type[ValueError], ...]:
    from cnn_flax.registry import UnknownModelError
    from cnn_flax.weights import WeightsError

    return UnknownModelError, WeightsError


def _complain(text: str) -> None:
    say(Console(stderr=True), text)
