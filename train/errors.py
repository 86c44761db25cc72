"""The ends of a run that a command tells in a line, without a traceback."""

__all__ = ["Interrupted", "NotFiniteError", "StorageError", "UserError"]


class UserError(ValueError):
    """What was asked for cannot be done; the message says what can.

    `cnn-flax` has one of its own: to import the library is to import JAX, which takes
    longer than to list the recipes.
    """


class NotFiniteError(ArithmeticError):
    """A loss or gradient was NaN or infinite.

    Attributes:
      step: the step that it happened in; steps count from 1.
    """

    def __init__(self, step: int, name: str, value: float) -> None:
        super().__init__(f"The {name.replace('_', ' ')} of step {step} is {value}.")
        self.step = step


class StorageError(Exception):
    """A folder or file takes no more, as when the disk is full; nothing is damaged."""


class Interrupted(Exception):
    """A signal asked the run to stop; it was saved.

    Attributes:
      signal: the signal's number.
      step: number of steps done.
    """

    def __init__(self, signal: int, step: int) -> None:
        super().__init__(f"Stopped after step {step}.")
        self.signal = signal
        self.step = step
