"""What `cnn-flax` prints, and the error that it reports in one line."""

import re

from rich.console import Console
from rich.table import Table

__all__ = ["TRAIN", "UserError", "print_out", "printable"]

# What the training programs are called by.
TRAIN = "cnn-flax train"


class UserError(ValueError):
    """The command cannot be run as given; the message says what can."""


def print_out(content: Table | str) -> None:
    """Prints a table, or text with its unprintable characters escaped."""
    # No markup and no emoji codes, as names of files and extras contain brackets.
    console = Console(highlight=False, markup=False, emoji=False)
    if isinstance(content, str):
        console.print(printable(content), soft_wrap=True)
    else:
        console.print(content)


def printable(text: str) -> str:
    """Text with escapes for what would move the cursor or cannot be encoded.

    As `train.console.printable`, which is not a part of the library.
    """
    unprintable = "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
    return re.sub(unprintable, lambda match: ascii(match[0])[1:-1], text)
