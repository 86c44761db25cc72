"""What torch's programs add to the names of a state dict, and to its entries."""

import re
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["HEADS", "is_count", "without_wrappers"]

# Names of the module that gives the logits, in the libraries and in users' nets.
HEADS = ("fc", "classifier", "head", "last_linear", "_fc")

# Modules that DataParallel, `torch.compile` and FSDP wrap around a net or a part of it.
_WRAPPERS = re.compile(
    r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.(?=.)"
)
# Attributes that users' programs hold their whole net in.
_HOLDERS = ("model.", "net.", "network.", "backbone.", "encoder.")
# Scalars that BatchNorm, averaged models and profilers register; no net needs them.
_COUNTS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")

T = TypeVar("T")


def is_count(name: str) -> bool:
    """Whether an entry counts batches, averages or operations."""
    return name.rpartition(".")[2] in _COUNTS


def without_wrappers(state_dict: Mapping[str, T]) -> dict[str, T]:
    """A state dict with the names that the net inside the wrappers has.

    Wrappers' names are removed wherever they occur, unless two names would then be the
    same; those of holders ("model.", "backbone." ...) if all names begin with one.
    """
    renamed = {_WRAPPERS.sub("", name): x for name, x in state_dict.items()}
    if len(renamed) < len(state_dict):
        return dict(state_dict)
    while holder := _common_holder([n for n in renamed if not is_count(n)]):
        renamed = {name.removeprefix(holder): x for name, x in renamed.items()}
    return renamed


def _common_holder(names: list[str]) -> str:
    for holder in _HOLDERS:
        if names and all(n.startswith(holder) and n != holder for n in names):
            return holder
    return ""
