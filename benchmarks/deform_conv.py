"""Deformable convolution v2, 3x3, against torchvision's kernel: time and memory."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import measure_case
from benchmarks.measurements import Row
from benchmarks.options import Options
from benchmarks.tables import OURS, Columns
from benchmarks.timing import PEER_PAUSE, repeated
from benchmarks.worker_process import Program, has_torch
from cnn_flax.layers import deform_conv2d

__all__ = ["COLUMNS", "TITLE", "measure", "program"]

TITLE = "deformable convolution v2, 3x3, with offsets of a few pixels"
COLUMNS: Columns = {
    "extra memory, MB": ("extra_memory", ",.1f", 1e-6),
    "planned by the compiler, MB": ("temporary", ",.1f", 1e-6),
}

# Height and width in pixels, channels: as in the 3x3 of a ResNet's stages 2 to 4.
SHAPES = ((56, 64), (28, 128), (14, 256))


def measure(options: Options) -> list[Row]:
    """Measures the forward pass and the gradients, by default at batch 2."""
    batch_size = options.batch_size or 2
    rows = []
    for size, channels in ((4, 8),) if options.quick else SHAPES:
        for gradients in (False, True):
            what = "with gradients" if gradients else "forward"
            case = f"{size}x{size}x{channels}, batch {batch_size}, {what}"
            arguments = {
                "batch_size": batch_size,
                "size": size,
                "channels": channels,
                "gradients": gradients,
            }
            builders = {OURS: "benchmarks.deform_conv:program"}
            if has_torch():
                builders["torchvision"] = "benchmarks.torch_programs:deform_conv"
            rows += measure_case(
                case,
                {
                    name: (builder, arguments)
                    for name, builder in options.select(builders).items()
                },
                options.turns(block_seconds=0.5, pause=PEER_PAUSE),
            )
    return rows


def program(
    batch_size: int, size: int, channels: int, gradients: bool
) -> tuple[Program, dict[str, Any]]:
    """Our layer, compiled, for a worker process."""
    rng = np.random.default_rng(0)
    map_shape = (batch_size, size, size)
    arguments = jax.device_put(
        (
            rng.standard_normal((*map_shape, channels), np.float32),
            2 * rng.standard_normal((*map_shape, 18), np.float32),
            0.05 * rng.standard_normal((3, 3, channels, channels), np.float32),
            rng.random((*map_shape, 9), np.float32),
        )
    )

    def forward(x, offset, weight, mask):
        return deform_conv2d(x, offset, weight, mask=mask, padding=1)

    def loss(*arguments):
        return jnp.square(forward(*arguments)).sum()

    function = jax.grad(loss, (0, 1, 2, 3)) if gradients else forward
    compiled = jax.jit(function).lower(*arguments).compile()

    run = repeated(partial(compiled, *arguments))
    memory = compiled.memory_analysis()
    temporary = getattr(memory, "temp_size_in_bytes", None)
    return run, {} if temporary is None else {"temporary": temporary}
