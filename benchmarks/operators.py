"""Our layers against Flax's with the same parameters, forward and with gradients."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks.options import Options
from benchmarks.record import Row
from benchmarks.tables import OURS, Columns
from benchmarks.timing import alternate
from cnn_flax.layers import Conv

__all__ = ["COLUMNS", "TITLE", "measure"]

TITLE = "our layers against Flax's, with the same parameters"
COLUMNS: Columns = {}

# ResNet-50's convolutions at 224 px (the paper's table 1): name, map, channels in,
# channels out, kernel, stride.
CONVOLUTIONS = (
    ("1x1 56px 64-256", 56, 64, 256, 1, 1),
    ("1x1 14px 1024-256", 14, 1024, 256, 1, 1),
    ("1x1/2 28px 512-1024", 28, 512, 1024, 1, 2),
    ("3x3 14px 256-256", 14, 256, 256, 3, 1),
)


def measure(options: Options) -> list[Row]:
    """Measures every convolution, by default at batch 8."""
    batch = options.batch_size or (1 if options.quick else 8)
    rows = []
    for name, size, channels, features, kernel_size, strides in CONVOLUTIONS:
        x = jax.random.normal(jax.random.key(0), (batch, size, size, channels))
        arguments = (features, (kernel_size, kernel_size), strides, kernel_size // 2)
        layers = {"Flax": nn.Conv(*arguments), OURS: Conv(*arguments)}
        variables = layers["Flax"].init(jax.random.key(1), x)
        for what, program in (("forward", _forward), ("gradients", _gradients)):
            timings = alternate(
                {
                    who: partial(jax.jit(partial(program, layer)), variables, x)
                    for who, layer in layers.items()
                },
                **options.turns(block_seconds=0.1),
            )
            rows += [
                {"case": f"{name}, {what}", "candidate": who, **timing.row()}
                for who, timing in timings.items()
            ]
    return rows


def _forward(layer, variables, x):
    return layer.apply(variables, x)


def _gradients(layer, variables, x):
    def loss(variables, x):
        return jnp.square(layer.apply(variables, x)).mean()

    return jax.grad(loss, (0, 1))(variables, x)
