"""`parse`: tyro's parser, with our errors as plain lines."""

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from train.errors import UserError

__all__ = ["parse"]


def parse(form: Any, *, prog: str, args: Sequence[str], **options: Any) -> Any:
    """The object that a command line describes; see `tyro.cli`.

    Raises:
      UserError: what a form raises for values that do not fit. tyro would print it in
        a box, with the path of the form in its own tree.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(form, prog=prog, args=args, **options)
    except SystemExit as stop:
        if error := _raised_before(stop):
            raise error from None
        sys.stderr.write(printed.getvalue())
        raise


def _raised_before(stop: SystemExit) -> UserError | None:
    error: BaseException | None = stop
    while error is not None and not isinstance(error, UserError):
        error = error.__context__
    return error
