"""Looking into a model: what it sees."""

from cnn_flax.analysis.receptive_field import (
    ReceptiveField,
    ReceptiveFieldError,
    receptive_field,
    receptive_fields,
)

__all__ = [
    "ReceptiveField",
    "ReceptiveFieldError",
    "receptive_field",
    "receptive_fields",
]
