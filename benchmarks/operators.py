"""Our layers against Flax's with the same parameters, forward and with gradients."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks.measurements import Row
from benchmarks.options import Options
from benchmarks.tables import OURS, Columns
from benchmarks.timing import alternate
from cnn_flax.layers import BatchNorm, Conv, max_pool

__all__ = ["COLUMNS", "TITLE", "measure"]

TITLE = "our layers against Flax's, with the same parameters"
COLUMNS: Columns = {}

# Of ResNet-50 (the paper's table 1), ResNeXt-50 and EfficientNet-B0 at 224 px: name,
# map size, input channels, output channels, kernel, stride, groups.
CONVOLUTIONS = (
    ("1x1 56px 64-256", 56, 64, 256, 1, 1, 1),
    ("1x1 14px 1024-256", 14, 1024, 256, 1, 1, 1),
    ("1x1/2 28px 512-1024", 28, 512, 1024, 1, 2, 1),
    ("3x3 14px 256-256", 14, 256, 256, 3, 1, 1),
    ("3x3 32 groups 28px 256-256", 28, 256, 256, 3, 1, 32),
    ("3x3 32 groups/2 28px 512-512", 28, 512, 512, 3, 2, 32),
    ("3x3 depthwise 112px 32", 112, 32, 32, 3, 1, 32),
    ("3x3 depthwise/2 112px 96", 112, 96, 96, 3, 2, 96),
    ("5x5 depthwise 28px 240", 28, 240, 240, 5, 1, 240),
    ("5x5 depthwise/2 56px 144", 56, 144, 144, 5, 2, 144),
)
# Of ResNet-50's stem and DenseNet-121's last block: name, map size, channels.
POOLINGS = (("max pool 3x3/2 112px 64", 112, 64),)
NORMS = (("batch norm 56px 256", 56, 256), ("batch norm 7px 2048", 7, 2048))


def measure(options: Options) -> list[Row]:
    """Measures every layer, by default at batch 8."""
    batch = options.batch_size or (1 if options.quick else 8)
    rows = []
    for name, layers, shape in islice(_cases(), 0, None, 6 if options.quick else 1):
        if options.quick:
            shape = (7, 7, shape[-1])
        x = jax.random.normal(jax.random.key(0), (batch, *shape))
        variables = layers["Flax"].init(jax.random.key(1), x)
        for what, program in (("forward", _forward), ("gradients", _gradients)):
            timings = alternate(
                {
                    candidate: partial(jax.jit(partial(program, layer)), variables, x)
                    for candidate, layer in options.select(layers).items()
                },
                **options.turns(block_seconds=0.1),
            )
            rows += [
                {"case": f"{name}, {what}", "candidate": candidate, **timing.row()}
                for candidate, timing in timings.items()
            ]
    return rows


def _cases():
    """Name, layers by candidate, and the shape of an image."""
    for name, size, channels, features, kernel, strides, groups in CONVOLUTIONS:
        fields = {
            "features": features,
            "kernel_size": (kernel, kernel),
            "strides": strides,
            "padding": kernel // 2,
            "feature_group_count": groups,
        }
        layers = {"Flax": nn.Conv(**fields), OURS: Conv(**fields)}
        yield name, layers, (size, size, channels)
    for name, size, channels in POOLINGS:
        layers = {"Flax": _Function(_flax_max_pool), OURS: _Function(_our_max_pool)}
        yield name, layers, (size, size, channels)
    for name, size, channels in NORMS:
        layers = {"Flax": _Training(nn.BatchNorm), OURS: _Training(BatchNorm)}
        yield name, layers, (size, size, channels)


class _Function(nn.Module):
    function: Callable[[jax.Array], jax.Array]

    def __call__(self, x):
        return self.function(x)


def _flax_max_pool(x):
    padding: Any = ((1, 1), (1, 1))
    return nn.max_pool(x, (3, 3), (2, 2), padding)


def _our_max_pool(x):
    return max_pool(x, 3, 2, padding=1)


class _Training(nn.Module):
    """A normalisation with the statistics of the batch."""

    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x):
        return self.norm(name="bn")(x, use_running_average=False)


def _forward(layer, variables, x):
    return layer.apply(variables, x, mutable=["batch_stats"])[0]


def _gradients(layer, variables, x):
    def loss(params, x):
        y = _forward(layer, {**variables, "params": params}, x)
        return jnp.square(y).mean()

    return jax.grad(loss, (0, 1))(variables.get("params", {}), x)
