"""Model analysis: cost, features and receptive fields."""

from cnn_flax.analysis.closed_form import (
    single_layer_receptive_field,
    stack_parameters,
    stack_receptive_field,
)
from cnn_flax.analysis.deformable_sampling import deformable_sampling_points
from cnn_flax.analysis.depth import depth
from cnn_flax.analysis.effective_field import (
    EffectiveReceptiveField,
    effective_receptive_field,
)
from cnn_flax.analysis.features import FeatureInfo, feature_info, features
from cnn_flax.analysis.named_arrays import ReceptiveFieldError
from cnn_flax.analysis.plot import plot_receptive_field
from cnn_flax.analysis.receptive_field import (
    ReceptiveField,
    receptive_field,
    receptive_fields,
)
from cnn_flax.analysis.summary import BlockSummary, Summary, summary

__all__ = [
    "BlockSummary",
    "EffectiveReceptiveField",
    "FeatureInfo",
    "ReceptiveField",
    "ReceptiveFieldError",
    "Summary",
    "deformable_sampling_points",
    "depth",
    "effective_receptive_field",
    "feature_info",
    "features",
    "plot_receptive_field",
    "receptive_field",
    "receptive_fields",
    "single_layer_receptive_field",
    "stack_parameters",
    "stack_receptive_field",
    "summary",
]
