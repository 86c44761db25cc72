"""Our layers against Flax's with the same parameters, forward and with gradients."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks.timing import alternate
from cnn_flax.layers import Conv

__all__ = ["TITLE", "run"]

TITLE = "our layers against Flax's, with the same parameters"

# ResNet-50's convolutions at 224 px (the paper's table 1): name, map, channels in,
# channels out, kernel, stride.
CONVOLUTIONS = (
    ("1x1 56px 64-256", 56, 64, 256, 1, 1),
    ("1x1 14px 1024-256", 14, 1024, 256, 1, 1),
    ("1x1/2 28px 512-1024", 28, 512, 1024, 1, 2),
    ("3x3 14px 256-256", 14, 256, 256, 3, 1),
)


def run(quick: bool = False) -> tuple[list[str], list[list[str]]]:
    """Measures every convolution.

    Args:
      quick: whether to show only that it works: a batch of one, two short blocks.

    Returns:
      The names of the columns, and the rows.
    """
    batch, blocks, seconds = (1, 2, 0.01) if quick else (8, 15, 0.1)
    columns = ["convolution", "pass", "flax ms", "ours ms", "speed-up", "spread"]
    rows = []
    for name, size, channels, features, kernel_size, strides in CONVOLUTIONS:
        x = jax.random.normal(jax.random.key(0), (batch, size, size, channels))
        arguments = (features, (kernel_size, kernel_size), strides, kernel_size // 2)
        layers = {"flax": nn.Conv(*arguments), "ours": Conv(*arguments)}
        variables = layers["flax"].init(jax.random.key(1), x)
        for what, program in (("forward", _forward), ("gradients", _gradients)):
            timings = alternate(
                {
                    who: partial(jax.jit(partial(program, layer)), variables, x)
                    for who, layer in layers.items()
                },
                blocks=blocks,
                block_seconds=seconds,
            )
            flax, ours = timings["flax"], timings["ours"]
            rows.append(
                [
                    name,
                    what,
                    f"{flax.median * 1e3:.2f}",
                    f"{ours.median * 1e3:.2f}",
                    f"{flax.median / ours.median:.2f}",
                    f"{max(flax.spread, ours.spread):.0%}",
                ]
            )
    return columns, rows


def _forward(layer, variables, x):
    return layer.apply(variables, x)


def _gradients(layer, variables, x):
    def loss(variables, x):
        return jnp.square(layer.apply(variables, x)).mean()

    return jax.grad(loss, (0, 1))(variables, x)
