"""A policy of few operations, for tests that are not about the operations."""

import pytest

from cnn_flax.augment import policy_table

# A shift of levels and one of values; moving pixels is not among `_VALUES`.
KEPT = ("brightness", "posterize")


def leave_out_operations(patch: pytest.MonkeyPatch) -> None:
    """Makes most operations the identity, as all take a second or more to compile."""
    for name in policy_table._VALUES:
        if name not in KEPT:
            patch.setitem(policy_table._VALUES, name, lambda x, strength: x)
