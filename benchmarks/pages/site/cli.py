"""The reference of both command lines, made from their parsers."""

import argparse
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import tyro

from cnn_flax import cli as library
from train import recipes
from train.commands import main as programs
from train.commands.advise import Advise
from train.commands.calibrate import Calibrate
from train.commands.compare import Compare
from train.commands.evaluate import Evaluate
from train.commands.noisy_student import RunNoisyStudent
from train.commands.plan import Plan
from train.commands.predict import Predict
from train.commands.pseudo_label import PseudoLabel
from train.commands.run import Run
from train.commands.search_scaling import SearchScaling
from train.config import Config

__all__ = ["arguments", "library_page", "training_page"]

_DEFAULT = re.compile(
    r"\s*\((default: [^()]*(?:\([^()]*\))?[^()]*|required)\)\s*$", re.S
)
_LONG = 24  # Characters of a flag's value that still fit in its column.
_COMMANDS = (Evaluate, Calibrate, Predict, Compare, PseudoLabel, Advise, SearchScaling)


def library_page() -> str:
    """The page of `cnn-flax`."""
    parser, commands = library._parsers()
    parts = [f"# cnn-flax\n\n{_sentence(parser.description)}"]
    for name, command in commands.items():
        usage = " ".join(command.format_usage().split()).removeprefix("usage: ")
        parts.append(f"## {name}\n\n{_sentence(command.description)}")
        parts.append(f"```text\n{usage}\n```")
        parts.extend(_tables(command))
    return "\n\n".join(parts) + "\n"


def training_page() -> str:
    """The page of `python -m train`."""
    usage = str(programs.__doc__).partition("\n\n")[2].rstrip()
    run = Annotated[Run, tyro.conf.arg(name="")]
    default = Run(Path("runs", "RECIPE"), False, Config())
    recipe = _parser(run, default)
    known = {flag for flag, _ in arguments(recipe)}
    parts = [
        f"# python -m train\n\n```text\n{usage}\n```",
        "## RECIPE\n\nRuns a [recipe](../recipes.md), or resumes a run. A recipe sets "
        "some of the defaults anew; `python -m train RECIPE --help-all` shows them.",
        *_tables(recipe),
    ]
    for form in _COMMANDS:
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", form.__name__).lower()
        parts.append(f"## {name}\n\n{_sentence(form.__doc__)}")
        parts.extend(_tables(_parser(form)))
    student = recipes.load("noisy_student_digits").noisy_student
    assert student is not None
    for title, form, default in (
        ("plan RECIPE", Plan, Plan(tyro.MISSING, Config())),
        (
            "noisy-student RECIPE",
            RunNoisyStudent,
            RunNoisyStudent(Path("runs", "RECIPE"), False, student),
        ),
    ):
        own = arguments(_parser(form, default))
        parts.append(f"## {title}")
        parts.append(f"{_sentence(form.__doc__)} It also takes the flags of a recipe.")
        parts.append(_table(cells for flag, cells in own if flag not in known))
    return "\n\n".join(parts) + "\n"


def arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[str]]]:
    """The flags of a parser.

    Yields:
      The flag's name, and its cells: the flag, its default, what it does.
    """
    for group in parser._action_groups:
        for action in group._group_actions:
            if action.help == argparse.SUPPRESS or action.dest == "help":
                continue
            yield _name(action), _cells(action)


def _parser(form: Any, *default: Any) -> Any:
    """Tyro's parser of a command, an `argparse.ArgumentParser`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return tyro.extras.get_parser(
            form, **({"default": default[0]} if default else {})
        )


def _tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    """One table per group of arguments, under the group's description."""
    for group in parser._action_groups:
        shown = [
            action
            for action in group._group_actions
            if action.help != argparse.SUPPRESS
            and action.dest != "help"
            and not isinstance(action, argparse._SubParsersAction)
        ]
        if not shown:
            continue
        if group.description:
            yield f"### {_sentence(group.description).rstrip('.')}"
        yield _table(_cells(action) for action in shown)


def _table(rows: Iterable[list[str]]) -> str:
    lines = [["flag", "default", "meaning"], ["---"] * 3, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(action: argparse.Action) -> str:
    return action.option_strings[0] if action.option_strings else str(action.metavar)


def _cells(action: argparse.Action) -> list[str]:
    text = " ".join(str(action.help or "").split())
    found = _DEFAULT.search(text)
    default = found[1].removeprefix("default: ") if found else ""
    if default in ("None", "''", '""'):
        default = ""
    metavar = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    value = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
    text = _DEFAULT.sub("", text)
    if len(value) > _LONG:  # The choices of a flag.
        choices = ", ".join(dict.fromkeys(re.findall(r"\w+", value)))
        text, value = f"{text.rstrip('.')}. One of {choices}.", "NAME"
    if action.option_strings:
        forms = list(action.option_strings)
        if value and action.nargs != 0:
            forms[-1] += f" {value}"
    else:
        forms = [value or action.dest]
    flag = "<br>".join(f"`{form}`" for form in forms)
    return [flag, default and f"`{default}`", _sentence(text)]


def _sentence(text: str | None) -> str:
    """The text in one line, with what Markdown would take for markup escaped."""
    line = " ".join(str(text or "").split())
    return line.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
