"""What is inside a model: shapes, parameters, cost, features."""

from cnn_flax.analysis.depth import depth
from cnn_flax.analysis.summary import BlockSummary, Summary, summary

__all__ = ["BlockSummary", "Summary", "depth", "summary"]
