"""What a command tells in a line, without a traceback."""

__all__ = ["UserError"]


class UserError(ValueError):
    """What was asked for cannot be done; the message says what can."""
