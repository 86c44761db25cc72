"""Converting torch's checkpoints to our variables and back, bit by bit."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from cnn_flax.registry import list_models, registration
from cnn_flax.weights.dialects import Dialect, Rule, dialects, find_dialects, rule_of
from cnn_flax.weights.errors import WeightsError, listing_of, name_of
from cnn_flax.weights.layouts import (
    as_numpy,
    from_torch_layout,
    to_torch_layout,
    torch_shape,
)
from cnn_flax.weights.torch_names import HEADS, is_count
from cnn_flax.weights.variables import Sizes, flatten, variable_shapes

__all__ = [
    "dialect_of",
    "fits",
    "from_torch",
    "net_of",
    "read_state_dict",
    "to_dialect",
    "to_torch",
]

Flat = dict[str, Any]
Names = dict[str, tuple[str, Rule]]


def from_torch(
    name: str, state_dict: Mapping[str, Any], **fields: Any
) -> dict[str, Any]:
    """Converts torch's state dict of a model to our variables.

    The naming scheme, torchvision's or timm's, is detected automatically. The numbers
    of classes and of input channels follow the state dict; without a head,
    `num_classes` is 0. Auxiliary heads are included where there are some, unless
    `aux_logits=False`; `num_classes=0` leaves the head out, whatever it consists of.
    Weights of a plain ResNet fit a deformable one too, whose branches for offsets are
    then zero.

    A net that is a part of a larger module, such as "student.backbone.", is found by
    its names, and the rest of the module is left out; averaged weights ("ema") come
    first. So are the counts `num_batches_tracked`, `n_averaged`, `total_ops` and
    `total_params`, which no net needs.

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
      WeightsError: if the state dict is of another architecture, has a head that the
        model cannot have, or holds several such nets; names the first entries that are
        missing, unexpected or of another shape.
    """
    any_head = fields.get("num_classes") == 0
    return read_state_dict(name, state_dict, fields, any_head=any_head)


def read_state_dict(
    name: str,
    state_dict: Mapping[str, Any],
    fields: Mapping[str, Any],
    *,
    any_head: bool,
) -> dict[str, Any]:
    """`from_torch`; with `any_head`, a head that does not fit is left out.

    Raises:
      UnknownModelError, WeightsError: as `from_torch`.
    """
    if not isinstance(state_dict, Mapping):
        raise WeightsError(
            f"A state dict is a dict of arrays, got {type(state_dict).__name__}; "
            "cnn_flax.weights.read_checkpoint reads one from a file."
        )
    registration(name)  # It raises if there is no such model.
    left_out = tuple(
        beginning
        for field, beginning in dialects(name)[0].optional.items()
        if not fields.get(field, True)
    )
    net = net_of(name, state_dict)
    arrays = {e: x for e, x in net.items() if not e.startswith(left_out)}
    names, wanted = _expected(name, arrays, fields)
    if any_head and not _has_head(name, names, wanted, arrays):
        arrays = _without_head(name, names, arrays)
        names, wanted = _expected(name, arrays, fields)
    arrays |= _zeros(names, wanted, arrays)
    differences = _differences(names, wanted, arrays)
    if differences:
        raise WeightsError(
            f"The state dict does not fit {name}. {differences}"
            + (_about_head(name, names, arrays, fields) or _resemblance(name, arrays))
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
    return to_dialect(dialects(name)[0], variables)


def to_dialect(dialect: Dialect, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """`to_torch` with the names of one dialect.

    Raises:
      WeightsError: if the variables hold something that the dialect does not name.
    """
    state_dict = {}
    for path, value in flatten(variables).items():
        entry, rule = rule_of(dialect, _in_collection(path))
        state_dict[entry] = to_torch_layout(path, as_numpy(value), rule.flattened)
    return state_dict


def fits(name: str, state_dict: Mapping[str, Any]) -> bool:
    """Whether a torch state dict has exactly the entries of a model."""
    try:
        arrays = net_of(name, state_dict)
    except WeightsError:  # It holds several nets.
        return False
    return dialect_of(name, arrays) is not None and not _differences(
        *_expected(name, arrays, {}), arrays
    )


def dialect_of(name: str, arrays: Mapping[str, Any]) -> Dialect | None:
    """The dialect whose first kernel is there; None for another architecture."""
    for dialect in find_dialects(name):
        if any(stem in arrays for stem in dialect.stem_kernels):
            return dialect
    return None


def net_of(name: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a model in a state dict that may hold more, without counts.

    Raises:
      WeightsError: if it holds several nets of this architecture.
    """
    arrays = {entry: x for entry, x in state_dict.items() if not is_count(entry)}
    if dialect_of(name, arrays) is not None:
        return arrays
    sizes = {
        begin: _size_of_net(dialect, begin, arrays)
        for dialect in find_dialects(name)
        for begin in _begins(dialect, arrays)
    }
    largest = [b for b, size in sizes.items() if size and size == max(sizes.values())]
    averaged = [begin for begin in largest if "ema" in re.split(r"[._]", begin)]
    found = averaged or largest
    if not found:
        return arrays
    if len(found) > 1:
        raise WeightsError(
            f"The state dict holds several nets with the names of {name}, under "
            f"{listing_of(map(name_of, found))}: pass the entries of one of them."
        )
    net = _below(found[0], arrays)
    if not any(map(_is_of_head, net)):
        # The head may be next to the net, as one that the model cannot have.
        parent = found[0].rpartition(".")[0].rpartition(".")
        siblings = _below("".join(parent[:2]), arrays)
        net |= {e: x for e, x in siblings.items() if _is_of_head(e)}
    return net


def _below(begin: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {e.removeprefix(begin): x for e, x in arrays.items() if e.startswith(begin)}


def _is_of_head(entry: str) -> bool:
    return entry.partition(".")[0] in HEADS


def _begins(dialect: Dialect, arrays: Mapping[str, Any]) -> set[str]:
    """What precedes the first kernel's name in a state dict, wherever it occurs."""
    return {
        entry.removesuffix(stem)
        for stem in dialect.stem_kernels
        for entry in arrays
        if entry.endswith(f".{stem}")
    }


def _size_of_net(dialect: Dialect, begin: str, arrays: Mapping[str, Any]) -> int:
    """How many entries of a net there are below a beginning; 0 if it is no net.

    Many a block has a convolution of the same name as the first one. A net has more.
    """
    present = [
        x
        for entry, x in arrays.items()
        if entry.startswith(begin) and dialect.entries.fullmatch(entry, len(begin))
    ]
    return len(present) if sum(np.ndim(x) == 4 for x in present) > 1 else 0


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


def _has_head(name: str, names: Names, wanted: Flat, arrays: Mapping[str, Any]) -> bool:
    """Whether a state dict has the model's own head, in a shape that it can have."""
    head = dialects(name)[0].head + "/"
    own = {p: n for p, n in names.items() if _in_collection(p).startswith(head)}
    present = {e: arrays[e] for e, _ in own.values() if e in arrays}
    return bool(own) and not _differences(own, wanted, present)


def _without_head(name: str, names: Names, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without its heads, whatever they consist of."""
    dialect = dialects(name)[0]
    auxiliary = tuple(dialect.optional.values())
    of_head = (dialect.head + "/", *auxiliary)
    body = {
        e for p, (e, _) in names.items() if not _in_collection(p).startswith(of_head)
    }
    return {
        entry: x
        for entry, x in arrays.items()
        if entry in body or not (_is_of_head(entry) or entry.startswith(auxiliary))
    }


def _about_head(
    name: str, names: Names, arrays: Mapping[str, Any], fields: Mapping[str, Any]
) -> str:
    """A sentence on a head that does not fit; empty if the rest does not either."""
    body = _without_head(name, names, arrays)
    names, wanted = _expected(name, body, {**fields, "num_classes": 0})
    if _differences(names, wanted, body):
        return ""
    return (
        " All but the head fits: num_classes=0 leaves that out, and load_pretrained "
        "initializes a new one for another number of classes."
    )


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
        "Missing": [name_of(entry) for entry in shapes if entry not in arrays],
        "Unexpected": [name_of(entry) for entry in arrays if entry not in shapes],
        "Of another shape": [
            f"{name_of(entry)} {list(np.shape(arrays[entry]))} for {list(shape)}"
            for entry, shape in shapes.items()
            if entry in arrays and np.shape(arrays[entry]) != shape
        ],
    }
    return " ".join(f"{k}: {listing_of(found)}." for k, found in kinds.items() if found)


def _resemblance(name: str, arrays: Mapping[str, Any]) -> str:
    """A sentence that names the model that a state dict fits; empty if none does."""
    for other in list_models():
        if fits(other, arrays):
            fields = " without those fields" if other == name else ""
            return f" It fits {other}{fields}."
    return ""


def _in_collection(path: str) -> str:
    return path.partition("/")[2]
