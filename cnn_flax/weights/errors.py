"""Errors of this package, and what they say of things that come from a file."""

from collections.abc import Iterable
from typing import Any

__all__ = ["CheckpointError", "WeightsError", "listing_of", "name_of", "reason_of"]

_MOST_CHARACTERS = 80  # Of a name.
_MOST_NAMES = 4  # That a message lists.
_LONGEST_REASON = 300


class WeightsError(ValueError):
    """Weights do not fit the model, or are not available."""


class CheckpointError(WeightsError):
    """A file is not a checkpoint, or holds more than tensors."""


def name_of(key: Any) -> str:
    """A name from a file, for a message: limited, and of anything else the type.

    Never the `repr` of what a pickle built: 182 bytes can make a tuple whose `repr`
    has 67 million characters, and 441 bytes one that never ends.
    """
    if isinstance(key, str):
        cut = key[:_MOST_CHARACTERS]
        return repr(cut) + ("..." if len(cut) < len(key) else "")
    if isinstance(key, int) and key.bit_length() < 64:
        return repr(key)
    return f"a {type(key).__name__}"


def listing_of(names: Iterable[str]) -> str:
    """The first few of several names, for a message, and how many more there are."""
    names = list(names)
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def reason_of(error: BaseException) -> str:
    """What is wrong with a file, of an error that a parser raised; never empty."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    key = error.args[0] if isinstance(error, KeyError) and error.args else None
    if key is not None and not (isinstance(key, str) and " " in key):
        return f"it has no {name_of(key)}"
    simple = all(isinstance(x, str | int | type(None)) for x in error.args)
    words = str(key or error) if simple else ""
    text = " ".join(words[: 4 * _LONGEST_REASON].split())
    text = text.removesuffix(".") or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
