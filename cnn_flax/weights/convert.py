"""Converting torch's checkpoints to our variables and back, bit by bit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from cnn_flax.registry import list_models, registration
from cnn_flax.weights.dialects import Dialect, Rule, dialects, find_dialects, rule_of
from cnn_flax.weights.errors import WeightsError
from cnn_flax.weights.layouts import (
    as_numpy,
    from_torch_layout,
    to_torch_layout,
    torch_shape,
)
from cnn_flax.weights.variables import Sizes, flatten, variable_shapes

__all__ = ["fits", "from_torch", "to_torch"]

_SHOWN = 4  # Entries of one kind that a message names.

Flat = dict[str, Any]
Names = dict[str, tuple[str, Rule]]


def from_torch(
    name: str, state_dict: Mapping[str, Any], **fields: Any
) -> dict[str, Any]:
    """Converts torch's state dict of a model to our variables.

    The naming scheme, torchvision's or timm's, is detected automatically. The numbers
    of classes and of input channels follow the state dict; without a head,
    `num_classes` is 0. Auxiliary heads are included where there are some, unless
    `aux_logits=False`. Weights of a plain ResNet fit a deformable one too, whose
    branches for offsets are then zero. `num_batches_tracked` is dropped, as Flax counts
    no batches.

    Args:
      name: one of `cnn_flax.list_models()`.
      state_dict: torch's names and arrays, in torch's layouts: numpy arrays, torch
        tensors, or anything else that numpy accepts.
      **fields: fields that the model is created with, where they change its
        parameters, such as `shortcut="projection_all"`.

    Returns:
      {"params": ..., "batch_stats": ...}: numpy arrays of the state dict's dtypes;
      copies, not views.

    Raises:
      UnknownModelError: if there is no such model.
      WeightsError: if the state dict is of another architecture; names the first
        entries that are missing, unexpected or of another shape.
    """
    if not isinstance(state_dict, Mapping):
        raise WeightsError(
            f"A state dict is a dict of arrays, got {type(state_dict).__name__}; "
            "cnn_flax.weights.read_checkpoint reads one from a file."
        )
    registration(name)  # It raises if there is no such model.
    left_out = [
        beginning
        for field, beginning in dialects(name)[0].optional.items()
        if not fields.get(field, True)
    ]
    arrays = {
        entry: value
        for entry, value in state_dict.items()
        if not entry.endswith("num_batches_tracked")
        and not entry.startswith(tuple(left_out))
    }
    names, wanted = _expected(name, arrays, fields)
    arrays |= _zeros(names, wanted, arrays)
    differences = _differences(names, wanted, arrays)
    if differences:
        raise WeightsError(
            f"The state dict does not fit {name}. {differences}"
            + _resemblance(name, arrays)
        )
    flat = {
        path: from_torch_layout(
            path, as_numpy(arrays[entry]), rule.flattened, len(wanted[path].shape)
        )
        for path, (entry, rule) in names.items()
    }
    return traverse_util.unflatten_dict(flat, sep="/")


def to_torch(name: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts our variables of a model to a state dict: the inverse of `from_torch`.

    Takes every tree of the model's structure: parameters alone, gradients, averages, in
    any dtype, with any number of classes and input channels. The names are
    torchvision's, or timm's where torchvision has no such model.

    There is no `num_batches_tracked`, which torch's BatchNorm needs only without a
    momentum; `load_state_dict` takes a plain dict without it, even with `strict=True`.

    Args:
      name: one of `cnn_flax.list_models()`.
      variables: {"params": ..., "batch_stats": ...}, or one of the two.

    Returns:
      torch's names and numpy arrays, in torch's layouts, of the variables' dtypes;
      copies, not views.

    Raises:
      UnknownModelError: if there is no such model.
      WeightsError: if the variables hold something that the model does not have.
    """
    registration(name)  # It raises if there is no such model.
    dialect = dialects(name)[0]
    state_dict = {}
    for path, value in flatten(variables).items():
        entry, rule = rule_of(dialect, _in_collection(path))
        state_dict[entry] = to_torch_layout(path, as_numpy(value), rule.flattened)
    return state_dict


def fits(name: str, state_dict: Mapping[str, Any]) -> bool:
    """Whether a torch state dict has exactly the entries of a model."""
    family = find_dialects(name)
    arrays = {
        entry: value
        for entry, value in state_dict.items()
        if not entry.endswith("num_batches_tracked")
    }
    has_stem = any(_shape_in(d, stem, arrays) for d in family for stem in d.stems)
    return has_stem and not _differences(*_expected(name, arrays, {}), arrays)


def _expected(
    name: str, arrays: Mapping[str, Any], fields: Mapping[str, Any]
) -> tuple[Names, Flat]:
    """Our paths with torch's names, and the shapes, for the sizes of a state dict."""
    family = dialects(name)
    found = _sizes_in(family, arrays)
    wanted = variable_shapes(name, {**found.fields, **fields}, found.in_channels)
    candidates = [
        {path: rule_of(dialect, _in_collection(path)) for path in wanted}
        for dialect in family
    ]
    best = max(
        candidates, key=lambda names: sum(e in arrays for e, _ in names.values())
    )
    return best, wanted


def _sizes_in(family: Sequence[Dialect], arrays: Mapping[str, Any]) -> Sizes:
    heads = [_shape_in(dialect, dialect.head, arrays) for dialect in family]
    stems = [_shape_in(d, stem, arrays) for d in family for stem in d.stems]
    return Sizes(
        num_classes=next((shape[0] for shape in heads if len(shape) == 2), 0),
        in_channels=next((shape[1] for shape in stems if len(shape) == 4), 3),
        without=_without(family[0], arrays),
    )


def _without(dialect: Dialect, names: Iterable[str]) -> tuple[str, ...]:
    """The optional fields whose modules are absent from the names, ours or torch's."""
    names = list(names)
    return tuple(
        field
        for field, beginning in dialect.optional.items()
        if not any(name.startswith(beginning) for name in names)
    )


def _shape_in(
    dialect: Dialect, module: str, arrays: Mapping[str, Any]
) -> tuple[int, ...]:
    """Shape of a module's weight in torch's layout; empty if there is none."""
    entry, _ = rule_of(dialect, f"{module}/kernel")
    return np.shape(arrays[entry]) if entry in arrays else ()


def _zeros(names: Names, wanted: Flat, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Zeros for the modules that begin at zero, if none of them is present."""
    new = {entry: path for path, (entry, rule) in names.items() if rule.begins_at_zero}
    if any(entry in arrays for entry in new):
        return {}
    return {
        entry: np.zeros(torch_shape(path, wanted[path].shape, None), np.float32)
        for entry, path in new.items()
    }


def _differences(names: Names, wanted: Flat, arrays: Mapping[str, Any]) -> str:
    """Says what is wrong with a state dict; empty if nothing is."""
    shapes = {
        entry: torch_shape(path, wanted[path].shape, rule.flattened)
        for path, (entry, rule) in names.items()
    }
    kinds = {
        "Missing": [entry for entry in shapes if entry not in arrays],
        "Unexpected": [entry for entry in arrays if entry not in shapes],
        "Of another shape": [
            f"{entry} {list(np.shape(arrays[entry]))} for {list(shape)}"
            for entry, shape in shapes.items()
            if entry in arrays and np.shape(arrays[entry]) != shape
        ],
    }
    return " ".join(_sentence(kind, found) for kind, found in kinds.items() if found)


def _sentence(kind: str, found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{kind}: {', '.join(found[:_SHOWN])}{more}."


def _resemblance(name: str, arrays: Mapping[str, Any]) -> str:
    """A sentence that names the model that a state dict fits; empty if none does."""
    for other in list_models():
        if fits(other, arrays):
            fields = " without those fields" if other == name else ""
            return f" It fits {other}{fields}."
    return ""


def _in_collection(path: str) -> str:
    return path.partition("/")[2]
