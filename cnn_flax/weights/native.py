"""Our own format: safetensors by our own names, such as "params/conv1/bn/scale".

It works for every registered model, whether or not torch has names for it.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
from flax import traverse_util
from safetensors.numpy import save

from cnn_flax.weights.errors import WeightsError, name_of
from cnn_flax.weights.variables import auxiliary_paths, sizes, variable_shapes
from cnn_flax.whole_files import write_whole

__all__ = ["as_bytes", "from_native", "is_native", "read_metadata", "write"]

_COLLECTIONS = ("params/", "batch_stats/")


def is_native(arrays: Mapping[str, Any]) -> bool:
    """Whether all names are ours."""
    return all(name.startswith(_COLLECTIONS) for name in arrays)


def from_native(
    name: str, arrays: Mapping[str, np.ndarray], **fields: Any
) -> dict[str, Any]:
    """Returns the variables of a model from arrays by our own names.

    Raises:
      WeightsError: if they are of another model.
    """
    found = sizes(name, arrays, **fields)
    wanted = variable_shapes(name, {**found.fields, **fields}, found.in_channels)
    if not fields.get("aux_logits", True):
        left_out = auxiliary_paths(name, fields)
        arrays = {path: x for path, x in arrays.items() if path not in left_out}
    for path in {**wanted, **arrays}:
        shapes = [np.shape(of[path]) for of in (wanted, arrays) if path in of]
        if len(shapes) < 2 or shapes[0] != shapes[1]:
            raise WeightsError(
                f"The file does not fit {name}; {name_of(path)} is the first parameter "
                "that is missing, unexpected or of another shape."
            )
    return traverse_util.unflatten_dict(dict(arrays), sep="/")


def write(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file, which appears under its name only when complete."""
    write_whole({path: as_bytes(arrays, metadata)})


def as_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The contents of a safetensors file."""
    contiguous = {name: np.asarray(x, order="C") for name, x in arrays.items()}
    return save(contiguous, metadata=dict(metadata))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of a safetensors file; empty if the file is none."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except (OSError, safetensors.SafetensorError):
        return {}
