"""What is inside a model: fields, shapes, parameters, cost, features."""

from cnn_flax.analysis.depth import depth
from cnn_flax.analysis.features import FeatureInfo, feature_info, features
from cnn_flax.analysis.receptive_field import (
    ReceptiveField,
    ReceptiveFieldError,
    receptive_field,
    receptive_fields,
)
from cnn_flax.analysis.summary import BlockSummary, Summary, summary

__all__ = [
    "BlockSummary",
    "FeatureInfo",
    "ReceptiveField",
    "ReceptiveFieldError",
    "Summary",
    "depth",
    "feature_info",
    "features",
    "receptive_field",
    "receptive_fields",
    "summary",
]
