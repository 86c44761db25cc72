"""What the weights' functions raise on bad input."""

__all__ = ["CheckpointError", "WeightsError"]


class WeightsError(ValueError):
    """Weights that do not fit the model, or are not to be had."""


class CheckpointError(WeightsError):
    """A file that is no checkpoint, or holds more than tensors."""
