"""`cnn-flax`: inspects models, converts weights, classifies images, and trains."""

import argparse
import fnmatch
import importlib
import io
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from rich.table import Table

import cnn_flax
from cnn_flax.catalogue import catalogue
from cnn_flax.console import TRAIN, UserError, print_out, printable
from cnn_flax.published import published_weights
from cnn_flax.registry import nearest

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (See {self.prog} --help.)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, by default this process's, and returns its exit code.

    0: success. 2: the command cannot be run; one line on stderr says why.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Whatever its encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["train"]:
            return _train(words[1:], may_restart=arguments is None)
        _run(words)
    except KeyboardInterrupt:
        return 130
    except (ValueError, ImportError) as error:
        if not _is_the_users(error):
            raise
        message = printable(" ".join(str(error).split()))
        print(f"cnn-flax: {message}", file=sys.stderr)
        return 2
    return 0


def _is_the_users(error: Exception) -> bool:
    """Whether the user can help it; an `ImportError` is of an extra."""
    if isinstance(error, UserError | ImportError):
        return True
    from cnn_flax.export import ExportError
    from cnn_flax.publish import PublishError
    from cnn_flax.registry import UnknownModelError
    from cnn_flax.weights import ImageError, WeightsError

    known = UnknownModelError | WeightsError | ImageError | ExportError | PublishError
    return isinstance(error, known)


def _train(words: Sequence[str], *, may_restart: bool) -> int:
    """Runs a command line of the training programs; returns its exit code."""
    from cnn_flax.programs import load

    load()
    if may_restart:  # In the same process, which comes here a second time.
        importlib.import_module("train.huge_pages").use_huge_pages()
    programs = importlib.import_module("train.commands.main")
    code = programs.main(words, TRAIN)
    if may_restart:  # This is the process's own command line.
        programs.leave(code)
    return code


def _run(words: Sequence[str]) -> None:
    first = words[0] if words else "--help"
    parser, commands = _parsers(first)
    if not first.startswith("-") and first not in commands:
        raise UserError(
            f"There is no command {first!r}. {nearest(first, commands)} "
            f"There are: {', '.join(commands)}."
        )
    options, rest = parser.parse_known_args(words or ["--help"])
    if rest:
        flags = _options(commands[first])
        raise UserError(
            f"cnn-flax {first} does not take {rest[0]!r}. {nearest(rest[0], flags)}"
        )
    options.run(options)


def _options(command: argparse.ArgumentParser) -> list[str]:
    return [option for action in command._actions for option in action.option_strings]


def _parsers(
    named: str | None = None,
) -> tuple[_Parser, dict[str, argparse.ArgumentParser]]:
    """The parser, and that of each command by its name.

    The flags of some commands need imports that take long: they are left out unless it
    is the named command, or none is named.
    """
    parser = _Parser(prog="cnn-flax", description=__doc__)
    parser.add_argument("--version", action="version", version=cnn_flax.__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, text: str, run: Callable[[argparse.Namespace], None] | None = None
    ):
        command = commands.add_parser(
            name, help=text, description=f"{text}.", allow_abbrev=False
        )
        command.set_defaults(run=run or partial(_run_command, name))
        return command

    command = add("list", "Lists the models", _list)
    command.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help='such as "resnet*" (default: all models)',
    )

    command = add(
        "info",
        "Shows a model's facts and its published weights",
    )
    command.add_argument("model")

    command = add(
        "summary",
        "Shows a model's blocks and their cost",
    )
    command.add_argument("model")
    command.add_argument(
        "--image-size",
        metavar="PX",
        help="image size, such as 224 or 192x256 (height x width); by default the size "
        "that the model is trained at",
    )

    command = add(
        "convert",
        "Converts weights between torch's names and ours",
    )
    command.add_argument(
        "source",
        metavar="IN",
        help="a file of weights (safetensors, .npz, .pth) with torch's names or ours, "
        "or the folder of a run",
    )
    command.add_argument(
        "out", metavar="OUT", type=pathlib.Path, help="the .safetensors file to write"
    )
    command.add_argument("--model", help="the model of the weights, if IN does not say")
    command.add_argument(
        "--names",
        choices=("ours", "torch"),
        help="whose names to write; by default ours for a file with torch's names, "
        "and torch's for other weights, if there are any for the model",
    )
    command.add_argument("--force", action="store_true", help="overwrite OUT")

    command = add("export", "Writes a model with its weights for another runtime")
    if named in (None, "export"):
        from cnn_flax.export.command import add_flags

        add_flags(command)

    command = add("predict", "Classifies images")
    command.add_argument("model")
    command.add_argument("images", metavar="IMAGE", nargs="+")
    command.add_argument(
        "--weights",
        metavar="FILE",
        help="a file or folder of weights, or an id on the Hugging Face Hub; by "
        "default the first published ones, downloaded",
    )
    command.add_argument(
        "--entry",
        metavar="SOURCE",
        help="the published weights whose preprocessing to use, by words of their "
        "source in `cnn-flax info MODEL`; by default detected from the file",
    )
    command.add_argument(
        "--top", metavar="N", type=int, default=5, help="classes per image (5)"
    )
    command.add_argument(
        "--max-pixels",
        metavar="N",
        type=int,
        default=0,
        help="allow images of up to N pixels, if that is more than Pillow's limit",
    )

    text = "Publishes weights on the Hugging Face Hub, or writes its folder"
    command = add("push", text)
    if named in (None, "push"):
        from cnn_flax.publish.command import add_flags

        add_flags(command)

    command = add(
        "gallery",
        "Draws each augmentation's effect on an image",
    )
    command.add_argument("image", metavar="IMAGE")
    command.add_argument(
        "--out",
        metavar="DIR",
        type=pathlib.Path,
        required=True,
        help="the folder to draw into: operations.png, random.png, policies.png",
    )
    # For the list of commands: `_train` takes its words, `--help` too.
    commands.add_parser("train", help=f"Trains models: `{TRAIN}` lists the recipes")
    return parser, dict(commands.choices)


def _run_command(name: str, options: argparse.Namespace) -> None:
    """Runs a command that needs JAX, whose import would slow down the others."""
    from cnn_flax import cli_commands

    getattr(cli_commands, name)(options)


def _list(options: argparse.Namespace) -> None:
    models = catalogue()
    names = fnmatch.filter(models, options.pattern)
    if not names:
        word = options.pattern.strip("*?")
        raise UserError(
            f"No model matches {options.pattern!r}. {nearest(word, models)}"
        )
    table = Table("model", "px", "weights", "paper")
    for name in names:
        entry = models[name]
        weights = str(len(published_weights(name)) or "")
        table.add_row(name, str(entry.image_size), weights, _citation(entry.paper))
    print_out(table)


def _citation(paper: str) -> str:
    """Authors and year of a paper: at most two authors are named."""
    authors, year, *_ = re.split(r" (\d{4})\b", paper, maxsplit=1)
    names = re.split(r", | and ", authors)
    return f"{' and '.join(names) if len(names) < 3 else names[0] + ' et al.'} {year}"


if __name__ == "__main__":
    sys.exit(main())
