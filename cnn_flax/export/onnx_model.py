"""Models as ONNX graphs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnn_flax.export.errors import ExportError
from cnn_flax.export.function import Preparation, inference_function
from cnn_flax.fold import fold_batch_norm
from cnn_flax.installing import install_command

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["to_onnx"]


def to_onnx(
    model: nn.Module,
    variables: Mapping[str, Any],
    preparation: Preparation,
    *,
    metadata: Mapping[str, str] | None = None,
    **options: Any,
) -> "ModelProto":
    """Exports a model with its weights as an ONNX graph, of opset 18.

    The graph computes in float32, with each BatchNorm folded into the convolution
    before it. Its input `images` is `[N, H, W, C]`, as everywhere here; inside, maps
    have their channels first, as ONNX's convolutions do. Its output is `logits`.

    Args:
      model: one of the registry, of dtype float32.
      variables: its variables.
      preparation: what the weights require of images: `model_info(name)`, or one of
        its `weights`.
      metadata: texts by name that the file carries.
      **options: `inside`, `batch_size`, `image_size`, `channels`:
        `cnn_flax.export.inference_function` has them.

    Returns:
      The graph: `SerializeToString()` gives the file's bytes.

    Raises:
      ImportError: if the package onnx is not installed.
      TypeError: if `model` is not a module.
      ExportError: if an option has another value, or does not fit the model.
    """
    try:
        from cnn_flax.export.onnx_writer.graph import Graph
        from cnn_flax.export.onnx_writer.program import write_program
    except ImportError as error:
        raise ImportError(
            f"ONNX graphs are written with onnx; install it: "
            f"{install_command('export')}."
        ) from error

    dtype = jnp.dtype(getattr(model, "dtype", None) or jnp.float32)
    if dtype != jnp.float32:
        raise ExportError(f"ONNX graphs are of float32, and the model is of {dtype}.")
    folded = fold_batch_norm(model, variables)
    infer, images = inference_function(*folded, preparation, **options)
    wanted = images.shape_dtype()
    graph = Graph()
    inputs = graph.input("images", wanted.shape, wanted.dtype)
    (logits,) = write_program(graph, jax.make_jaxpr(infer)(wanted), [inputs])
    return graph.model(logits, "logits", metadata or {})
