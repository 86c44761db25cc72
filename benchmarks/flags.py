"""Flags of `python -m benchmarks [NAME ..]`."""

import argparse
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path

from cnn_flax.registry import nearest

__all__ = ["BENCHMARKS", "STANDARD_OUTPUT", "at_least", "parse", "words"]

BENCHMARKS = (
    "inference",
    "training",
    "operators",
    "deform_conv",
    "augmentation",
    "input",
    "scaling",
    "compile",
    "growth",
    "labelling_memory",
    "shard_memory",
)

# As `--json`, in place of a file.
STANDARD_OUTPUT = Path("-")

# The benchmarks that `--profile` and `--plot` apply to.
_PROFILED, _PLOTTED = ("inference", "training"), ("inference",)


def parse(arguments: Sequence[str], description: str | None) -> argparse.Namespace:
    """Parses the command line; exits with a message if it is wrong.

    Args:
      arguments: of the command line.
      description: of the program, for `--help`.
    """
    parser = _parser(description)
    flags = parser.parse_args(arguments)
    for name in flags.names:
        if name not in BENCHMARKS:
            parser.error(
                f"There is no benchmark {name!r}. {nearest(name, BENCHMARKS)} "
                f"There are: {', '.join(BENCHMARKS)}."
            )
    if flags.plot and flags.names and not {*flags.names} & {*_PLOTTED}:
        parser.error(
            "--plot draws figures of `inference`, which is not among the names."
        )
    if flags.profile and flags.names and not {*flags.names} & {*_PROFILED}:
        parser.error(
            "--profile is for `inference` and `training`, which are not among the "
            "names."
        )
    if flags.json == STANDARD_OUTPUT and (flags.plot or flags.profile):
        parser.error(
            "--plot and --profile write files next to the raw results, and --json - "
            "writes none: give a file or a folder."
        )
    return flags


def words(text: str) -> tuple[str, ...]:
    """Words separated by commas, as a flag's type."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def at_least(least: int) -> Callable[[str], int]:
    """A flag's type: integers of at least this value."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return number


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"any of: {', '.join(BENCHMARKS)}; by default all",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="check in seconds that each benchmark works; the figures mean nothing",
    )
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H%M%S")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("runs", "benchmarks", now),
        metavar="PATH",
        help="where to write raw results: a file that ends in .json, or a folder for "
        "one file per benchmark; by default runs/benchmarks/NOW; - prints the rows as "
        "JSON lines, and the rest on the standard error",
    )
    parser.add_argument(
        "--plot",
        action="store_true",
        help="draw published accuracy against the measured throughput of inference, "
        "next to the raw results; with --models all, for every model that has both",
    )
    parser.add_argument(
        "--blocks", type=at_least(2), help="number of turns per candidate"
    )
    parser.add_argument("--block-seconds", type=float, help="duration of a turn")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="trace a few steps of ours in inference and training: the profile goes "
        "next to the raw results, and the longest operations into them",
    )
    models = parser.add_argument_group("inference and training")
    models.add_argument(
        "--models",
        type=words,
        metavar="NAME,..",
        help="or all: every model with published accuracy",
    )
    models.add_argument(
        "--candidates",
        type=words,
        metavar="NAME,..",
        help="candidates to measure, in any benchmark",
    )
    models.add_argument("--batch-size", type=at_least(1))
    models.add_argument("--image-size", type=at_least(1))
    models.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    models.add_argument(
        "--no-warm-start",
        dest="warm_start",
        action="store_false",
        help="start each candidate once, with the compilation caches that the "
        "environment names",
    )
    models.add_argument(
        "--no-limits",
        dest="limits",
        action="store_false",
        help="do not measure the device's peak rates",
    )
    return parser
