"""Inference of whole models: ours with folded BatchNorms, plain Flax, torch."""

from collections.abc import Iterator

import jax

from benchmarks.measurements import Row
from benchmarks.networks import COLUMNS, measure_networks
from benchmarks.options import Options
from benchmarks.plot import plot_accuracy as plot

__all__ = ["COLUMNS", "TITLE", "measure", "plot"]

TITLE = "logits of whole models, with folded BatchNorms in ours"


def measure(options: Options) -> Iterator[Row]:
    """Measures each model at batch 16, or 256 on an accelerator."""
    on_cpu = jax.devices()[0].platform == "cpu"
    return measure_networks("inference", options, 16 if on_cpu else 256)
