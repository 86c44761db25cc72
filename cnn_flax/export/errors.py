"""The error of this package."""

__all__ = ["ExportError"]


class ExportError(ValueError):
    """A model cannot be exported as asked; the message says what can."""
