"""Errors that commands report in one line, without a traceback."""

import errno

__all__ = ["Interrupted", "NotFiniteError", "StorageError", "UserError"]


class UserError(ValueError):
    """A request that cannot be fulfilled; the message says what can be done instead.

    `cnn_flax.cli` has its own `UserError`: importing the library imports JAX, which
    takes longer than listing the recipes.
    """


class NotFiniteError(ArithmeticError):
    """A loss or gradient was NaN or infinite.

    Attributes:
      step: the step in which it occurred, counted from 1.
    """

    def __init__(self, step: int, name: str, value: float) -> None:
        super().__init__(f"The {name.replace('_', ' ')} of step {step} is {value}.")
        self.step = step


class StorageError(Exception):
    """A disk accepted no more data, for example because it is full.

    Everything that was saved before is intact.

    Attributes:
      advice: what to do before going on.
    """

    def __init__(self, message: str, number: int = errno.ENOSPC) -> None:
        """Creates the error.

        Args:
          message: what could not be written, and why.
          number: of the operating system's error.
        """
        super().__init__(message)
        is_read_only = number == errno.EROFS
        self.advice = "Make it writable" if is_read_only else "Make room"


class Interrupted(Exception):
    """A signal stopped the run, which was saved first.

    Attributes:
      signal: the signal's number.
      step: number of completed steps.
    """

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"Stopped after step {step}.")
        self.signal = signal
        self.step = step
