"""Files of our variables by our own names, such as "params/conv1/bn/scale"."""

import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
from flax import traverse_util
from safetensors.numpy import save

from cnn_flax.weights.convert import flatten, sizes, template
from cnn_flax.weights.errors import WeightsError
from cnn_flax.weights.names import dialects

__all__ = ["from_native", "is_native", "read_metadata", "write"]

_COLLECTIONS = ("params/", "batch_stats/")


def is_native(arrays: Mapping[str, Any]) -> bool:
    """Whether all the names are ours."""
    return all(name.startswith(_COLLECTIONS) for name in arrays)


def from_native(
    name: str, arrays: Mapping[str, np.ndarray], **fields: Any
) -> dict[str, Any]:
    """Our variables of a model, from arrays by our own names.

    Raises:
      WeightsError: if they are of another model.
    """
    left_out = [
        f"{collection}{beginning}"
        for field, beginning in dialects(name)[0].optional.items()
        if not fields.get(field, True)
        for collection in _COLLECTIONS
    ]
    kept = {n: x for n, x in arrays.items() if not n.startswith(tuple(left_out))}
    variables = traverse_util.unflatten_dict(kept, sep="/")
    stems = [f"params/{stem}/kernel" for stem in dialects(name)[0].stems]
    wrong = [] if any(stem in arrays for stem in stems) else stems[:1]
    if not wrong:
        have = sizes(name, variables)
        wanted = template(name, {**have.fields, **fields}, have.in_channels)
        flat = flatten(variables)
        wrong = [
            path
            for path in {**wanted, **flat}
            if path not in wanted
            or path not in flat
            or wanted[path].shape != flat[path].shape
        ]
    if wrong:
        raise WeightsError(
            f"The file does not fit {name}; {wrong[0]} is the first parameter that is "
            "missing, unexpected or of another shape."
        )
    return variables


def write(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes safetensors; the file takes its name when it is whole."""
    whole = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    with tempfile.TemporaryDirectory(dir=path.parent) as part:
        new = pathlib.Path(part) / path.name
        # Not safetensors' `save_file`: its files are for the user's eyes alone.
        new.write_bytes(save(whole, metadata=dict(metadata)))
        new.replace(path)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """What a safetensors file says of itself; nothing if it is none."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except (OSError, safetensors.SafetensorError):
        return {}
