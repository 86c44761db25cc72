"""torch's checkpoints and our variables, each from the other, bit by bit."""

import functools
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
    """Our variables of a model, from torch's state dict of it.

    torchvision's and timm's names are told apart by themselves. The numbers of classes
    and of input channels follow the state dict; without a head, `num_classes` is 0.
    Auxiliary heads are kept where there are some, unless `aux_logits=False` says to
    leave them out. Weights of a plain ResNet fit a deformable one too, whose branches
    for offsets are then zero. `num_batches_tracked` is dropped: Flax counts no batches.

    Args:
      name: one of `cnn_flax.list_models()`.
      state_dict: torch's names and arrays, in torch's layouts: numpy arrays, torch
        tensors, or whatever else numpy takes.
      **fields: fields that the model is created with, where they change its
        parameters, such as `shortcut="projection_all"`.

    Returns:
      {"params": ..., "batch_stats": ...}: numpy arrays of the dtypes that they had;
      copies, not views of the state dict.

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
    given = {
        entry: value
        for entry, value in state_dict.items()
        if not entry.endswith("num_batches_tracked")
        and not entry.startswith(tuple(left_out))
    }
    names, wanted = _expected(name, given, fields)
    given |= _zeros(names, wanted, given)
    differences = _differences(names, wanted, given)
    if differences:
        raise WeightsError(
            f"The state dict does not fit {name}. {differences}"
            + _resemblance(name, given)
        )
    flat = {
        path: from_torch_layout(
            path, as_numpy(given[entry]), rule.flattened, len(wanted[path].shape)
        )
        for path, (entry, rule) in names.items()
    }
    return traverse_util.unflatten_dict(flat, sep="/")


def to_torch(name: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A state dict for torch, from our variables of a model: `from_torch`, backwards.

    Takes every tree of the model's shape: parameters alone, gradients, averages, in any
    dtype, with any number of classes and input channels. The names are torchvision's,
    or timm's where torchvision has no such model.

    There is no `num_batches_tracked`, which torch's BatchNorm needs only without a
    momentum; `load_state_dict` takes a plain dict without it, with `strict=True` too.

    Args:
      name: one of `cnn_flax.list_models()`.
      variables: {"params": ..., "batch_stats": ...}, or one of the two.

    Returns:
      torch's names and numpy arrays, in torch's layouts, of the dtypes that they had;
      copies, not views of the variables.

    Raises:
      UnknownModelError: if there is no such model.
      WeightsError: if the variables hold something that such a model does not have.
    """
    registration(name)  # It raises if there is no such model.
    dialect = dialects(name)[0]
    state_dict = {}
    for path, value in flatten(variables).items():
        entry, rule = rule_of(dialect, _in_collection(path))
        state_dict[entry] = to_torch_layout(path, as_numpy(value), rule.flattened)
    return state_dict


def fits(name: str, state_dict: Mapping[str, Any]) -> bool:
    """Whether a state dict of torch's has all that a model has, and no more."""
    known = find_dialects(name)
    given = {
        entry: value
        for entry, value in state_dict.items()
        if not entry.endswith("num_batches_tracked")
    }
    has_stem = any(_given_shape(d, stem, given) for d in known for stem in d.stems)
    return has_stem and not _differences(*_expected(name, given, {}), given)


def _expected(
    name: str, given: Mapping[str, Any], fields: Mapping[str, Any]
) -> tuple[Names, Flat]:
    """Our paths with torch's names, and the template, both of the given sizes."""
    known = dialects(name)
    found = _given_sizes(known, given)
    if fields:
        wanted = variable_shapes(name, {**found.fields, **fields}, found.in_channels)
    else:
        wanted = _shapes_of(name, found)
    candidates = [
        {path: rule_of(dialect, _in_collection(path)) for path in wanted}
        for dialect in known
    ]
    best = max(candidates, key=lambda names: sum(e in given for e, _ in names.values()))
    return best, wanted


# To say which model weights are of, many are traced.
@functools.cache
def _shapes_of(name: str, of: Sizes) -> Flat:
    return variable_shapes(name, of.fields, of.in_channels)


def _given_sizes(known: Sequence[Dialect], given: Mapping[str, Any]) -> Sizes:
    heads = [_given_shape(dialect, dialect.head, given) for dialect in known]
    stems = [_given_shape(d, stem, given) for d in known for stem in d.stems]
    return Sizes(
        num_classes=next((shape[0] for shape in heads if len(shape) == 2), 0),
        in_channels=next((shape[1] for shape in stems if len(shape) == 4), 3),
        without=_without(known[0], given),
    )


def _without(dialect: Dialect, names: Iterable[str]) -> tuple[str, ...]:
    """The optional fields of which none of the names, ours or torch's, has a trace."""
    names = list(names)
    return tuple(
        field
        for field, beginning in dialect.optional.items()
        if not any(name.startswith(beginning) for name in names)
    )


def _given_shape(
    dialect: Dialect, module: str, given: Mapping[str, Any]
) -> tuple[int, ...]:
    """Shape of a module's weight in torch's layout; empty where there is none."""
    entry, _ = rule_of(dialect, f"{module}/kernel")
    return np.shape(given[entry]) if entry in given else ()


def _zeros(names: Names, wanted: Flat, given: Mapping[str, Any]) -> dict[str, Any]:
    """The modules that begin at zero, where none of them is given."""
    new = {entry: path for path, (entry, rule) in names.items() if rule.begins_at_zero}
    if any(entry in given for entry in new):
        return {}
    return {
        entry: np.zeros(torch_shape(path, wanted[path].shape, None), np.float32)
        for entry, path in new.items()
    }


def _differences(names: Names, wanted: Flat, given: Mapping[str, Any]) -> str:
    """What is wrong with a state dict, or an empty string."""
    shapes = {
        entry: torch_shape(path, wanted[path].shape, rule.flattened)
        for path, (entry, rule) in names.items()
    }
    kinds = {
        "Missing": [entry for entry in shapes if entry not in given],
        "Unexpected": [entry for entry in given if entry not in shapes],
        "Of another shape": [
            f"{entry} {list(np.shape(given[entry]))} for {list(shape)}"
            for entry, shape in shapes.items()
            if entry in given and np.shape(given[entry]) != shape
        ],
    }
    return " ".join(_sentence(kind, found) for kind, found in kinds.items() if found)


def _sentence(kind: str, found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{kind}: {', '.join(found[:_SHOWN])}{more}."


def _resemblance(name: str, given: Mapping[str, Any]) -> str:
    """A sentence that names the model that a state dict fits, or an empty string."""
    for other in list_models():
        if fits(other, given):
            fields = " without those fields" if other == name else ""
            return f" It fits {other}{fields}."
    return ""


def _in_collection(path: str) -> str:
    return path.partition("/")[2]
