"""Errors of this package."""

__all__ = ["CheckpointError", "WeightsError"]


class WeightsError(ValueError):
    """Weights do not fit the model, or are not available."""


class CheckpointError(WeightsError):
    """A file is not a checkpoint, or holds more than tensors."""
