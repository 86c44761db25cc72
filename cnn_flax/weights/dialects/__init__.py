"""torch's names of our parameters, one file per family of models.

A new family is a new file here: its dialects, and a function under `@family`. Only
torch's weights need one; files of our own format do not.
"""

import importlib
import pkgutil

from cnn_flax.weights.dialects.base import (
    Dialect,
    Rule,
    dialects,
    family,
    find_dialects,
    rule_of,
)

__all__ = ["Dialect", "Rule", "dialects", "family", "find_dialects", "rule_of"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
