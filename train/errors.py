"""Errors that commands report in one line, without a traceback."""

__all__ = ["Interrupted", "NotFiniteError", "StorageError", "UserError"]


class UserError(ValueError):
    """What was asked for cannot be done; the message says what can.

    `cnn-flax` has a `UserError` of its own: importing the library imports JAX, which
    takes longer than listing the recipes.
    """


class NotFiniteError(ArithmeticError):
    """A loss or gradient was NaN or infinite.

    Attributes:
      step: the step in which it happened; steps count from 1.
    """

    def __init__(self, step: int, name: str, value: float) -> None:
        super().__init__(f"The {name.replace('_', ' ')} of step {step} is {value}.")
        self.step = step


class StorageError(Exception):
    """A disk took no more data, as when it is full; nothing was damaged."""


class Interrupted(Exception):
    """A signal stopped the run, after it was saved.

    Attributes:
      signal: the signal's number.
      step: number of completed steps.
    """

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"Stopped after step {step}.")
        self.signal = signal
        self.step = step
