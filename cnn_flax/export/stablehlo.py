"""Models as StableHLO programs, by `jax.export`."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn

from cnn_flax.export.errors import ExportError
from cnn_flax.export.function import Preparation, inference_function

__all__ = ["PLATFORMS", "readable_until", "to_stablehlo"]

PLATFORMS = ("cpu", "cuda", "tpu")
_ALLOWED = (*PLATFORMS, "rocm")


def to_stablehlo(
    model: nn.Module,
    variables: Mapping[str, Any],
    preparation: Preparation,
    *,
    platforms: Sequence[str] = PLATFORMS,
    **options: Any,
) -> jax.export.Exported:
    """Exports a model with its weights as a StableHLO program.

    The program needs neither this package nor Flax: `serialize()` gives bytes, of which
    `jax.export.deserialize(data).call(images)` computes the logits. It holds what
    `jax.jit` would compile: where a layer has a faster formulation for CPUs, a program
    for several platforms holds both, and each platform runs its own; a program without
    "cpu" holds none of a CPU's.

    Args:
      model: one of the registry.
      variables: its variables; constants of the program.
      preparation: what the weights require of images: `model_info(name)`, or one of
        its `weights`.
      platforms: where it runs: "cpu", "cuda", "tpu", "rocm".
      **options: `inside`, `batch_size`, `image_size`, `channels`:
        `cnn_flax.export.inference_function` has them.

    Returns:
      The program, from images to float32 logits `[N, num_classes]`.

    Raises:
      TypeError: if `model` is not a module.
      ExportError: if an option has another value, or does not fit the model.

    Example:
      >>> model = cnn_flax.create_model("resnet18", width=8, num_classes=10)
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
      >>> info = cnn_flax.model_info("resnet18")
      >>> program = cnn_flax.export.to_stablehlo(
      ...     model, variables, info, image_size=32, platforms=["cpu"]
      ... )
      >>> again = jax.export.deserialize(program.serialize())
      >>> again.call(jnp.zeros((2, 32, 32, 3))).shape
      (2, 10)
    """
    unknown = [name for name in platforms if name not in _ALLOWED]
    if unknown or not platforms:
        raise ExportError(
            f"platforms are some of {', '.join(_ALLOWED)}; got "
            f"{', '.join(map(str, unknown)) or 'none'}."
        )
    infer, images = inference_function(model, variables, preparation, **options)
    return jax.export.export(jax.jit(infer), platforms=list(platforms))(
        images.shape_dtype()
    )


def readable_until(today: datetime.date) -> datetime.date:
    """The day until which JAX's releases read a program that is exported today.

    JAX promises that a release reads what was exported in the six months before:
    https://docs.jax.dev/en/latest/501/export.html#compatibility-guarantees
    """
    return today + datetime.timedelta(days=180)
