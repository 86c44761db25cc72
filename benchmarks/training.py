"""Training of whole models: ours, plain Flax, torch."""

from collections.abc import Iterator

import jax

from benchmarks.measurements import Row
from benchmarks.networks import COLUMNS, measure_networks
from benchmarks.options import Options

__all__ = ["COLUMNS", "TITLE", "measure"]

TITLE = "training steps of whole models, with cross entropy, SGD and momentum"


def measure(options: Options) -> Iterator[Row]:
    """Measures each model at batch 8, or 256 on an accelerator."""
    on_cpu = jax.devices()[0].platform == "cpu"
    return measure_networks("training", options, 8 if on_cpu else 256)
