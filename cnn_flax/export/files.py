"""Files of exported models, with what their users must know."""

import datetime
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import cnn_flax
from cnn_flax.export import stablehlo
from cnn_flax.export.errors import ExportError
from cnn_flax.export.onnx_model import to_onnx
from cnn_flax.published import PublishedWeights
from cnn_flax.weights.class_names import class_names
from cnn_flax.weights.identify import IdentifiedWeights
from cnn_flax.weights.pretrained import load_identified
from cnn_flax.weights.variables import flatten, sizes
from cnn_flax.whole_files import write_whole

__all__ = ["FORMATS", "export_file"]

FORMATS = ("stablehlo", "onnx")
_DTYPES = ("float32", "bfloat16")


def export_file(
    weights: IdentifiedWeights,
    out: pathlib.Path,
    *,
    format: str,
    dtype: str = "float32",
    platforms: Sequence[str] = stablehlo.PLATFORMS,
    **options: Any,
) -> dict[str, str]:
    """Writes a model with its weights to a file of another runtime.

    Args:
      weights: what `cnn_flax.weights.identify.identify_weights` returns.
      out: the file. Next to one of StableHLO, `out` with `.json` after it holds the
        metadata, which an ONNX file has inside.
      format: "stablehlo" or "onnx".
      dtype: compute dtype of the net, "float32" or "bfloat16".
      platforms: of StableHLO.
      **options: `inside`, `batch_size`, `image_size`:
        `cnn_flax.export.inference_function` has them.

    Returns:
      The metadata: texts by name; those that are no words are JSON.

    Raises:
      ExportError: if an option has another value, or does not fit the model, or the
        file cannot be written.
      WeightsError: if the weights cannot be loaded.
    """
    if format not in FORMATS:
        raise ExportError(f"format is one of {', '.join(FORMATS)}; got {format!r}.")
    if dtype not in _DTYPES:
        raise ExportError(f"dtype is one of {', '.join(_DTYPES)}; got {dtype!r}.")
    model, variables = load_identified(weights, dtype=jnp.dtype(dtype))
    found = sizes(weights.name, flatten(variables), **weights.fields)
    options["channels"] = found.in_channels
    metadata = _metadata(weights, dtype, found.num_classes, options)
    if format == "onnx":
        graph = to_onnx(model, variables, weights, metadata=metadata, **options)
        _write({out: graph.SerializeToString()})
        return metadata
    program = stablehlo.to_stablehlo(
        model, variables, weights, platforms=platforms, **options
    )
    until = stablehlo.readable_until(datetime.date.today())
    metadata |= {
        "platforms": " ".join(platforms),
        "jax": jax.__version__,
        "readable_until": until.isoformat(),
    }
    described = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
    _write(
        {
            out: bytes(program.serialize()),
            out.with_name(f"{out.name}.json"): described.encode(),
        }
    )
    return metadata


def _metadata(
    weights: IdentifiedWeights, dtype: str, classes: int, options: Mapping[str, Any]
) -> dict[str, str]:
    entry: PublishedWeights | None = weights.entry
    names = class_names(weights, classes)
    inside = options.get("inside", "nothing")
    facts = {
        "producer": f"cnn_flax {cnn_flax.__version__}",
        "model": weights.name,
        "weights": weights.preparation,
        "license": entry.license if entry and weights.certain else None,
        "dtype": dtype,
        "inside": inside,
        "images": "float32, normalised" if inside == "nothing" else "uint8 levels",
        "image_size": options.get("image_size") or weights.image_size,
        "resize": weights.resize,
        "crop_mode": weights.crop_mode,
        "interpolation": weights.interpolation,
        "mean": weights.mean,
        "std": weights.std,
        "classes": classes,
        "class_names": names,
    }
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in facts.items()
        if value is not None
    }


def _write(files: Mapping[pathlib.Path, bytes]) -> None:
    try:
        write_whole(files)
    except OSError as error:
        path = next(iter(files))
        raise ExportError(f"{path} cannot be written: {error.strerror}.") from error
