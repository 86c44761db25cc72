"""The fields of a JSON file that someone may have changed."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["wrong_field"]


def wrong_field(tree: Any, fields: Mapping[str, Any], *, whole: bool = True) -> str:
    """Says which field of a JSON tree is missing or of another type; "" if none is.

    Args:
      tree: what was read.
      fields: from a field's name, such as "model.name", to its type; `[str]` is a list
        of strings. Integers are at least 0, floats finite.
      whole: whether fields may not be missing.
    """
    if not isinstance(tree, dict):
        return f"it holds a {type(tree).__name__}, no object"
    for path, kind in fields.items():
        node: Any = tree
        for name in path.split("."):
            node = node.get(name, _MISSING) if isinstance(node, dict) else _MISSING
        if node is _MISSING:
            if whole:
                return f"it has no {path}"
        elif not _is_of(kind, node):
            return f"its {path} is of another type, or out of range"
    return ""


_MISSING = object()


def _is_of(kind: Any, value: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is_of(kind[0], x) for x in value)
    if kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and abs(value) < 2**63 and math.isfinite(value)
    if kind is int:
        return type(value) is int and 0 <= value < 2**63
    return isinstance(value, kind)
