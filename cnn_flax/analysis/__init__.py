"""Looking into a model: what its maps see."""

from cnn_flax.analysis.arrays import ReceptiveFieldError
from cnn_flax.analysis.deformable import deformable_sampling_points
from cnn_flax.analysis.effective import (
    EffectiveReceptiveField,
    effective_receptive_field,
)
from cnn_flax.analysis.plot import plot_receptive_field
from cnn_flax.analysis.receptive_field import (
    ReceptiveField,
    receptive_field,
    receptive_fields,
)
from cnn_flax.analysis.textbook import (
    single_layer_receptive_field,
    stack_parameters,
    stack_receptive_field,
)

__all__ = [
    "EffectiveReceptiveField",
    "ReceptiveField",
    "ReceptiveFieldError",
    "deformable_sampling_points",
    "effective_receptive_field",
    "plot_receptive_field",
    "receptive_field",
    "receptive_fields",
    "single_layer_receptive_field",
    "stack_parameters",
    "stack_receptive_field",
]
