"""What a dialect is: the names that one library gives to our parameters.

A rule pairs a regular expression over the path of one of our modules with its name in
torch, where `{1}` is the expression's first group and `{2-1}` its second group minus
one (our blocks count from 1, torch's from 0). Rules only translate from our names to
torch's; the way back is to translate the names of all parameters that a model has.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cnn_flax.weights.errors import WeightsError, name_of

__all__ = ["Dialect", "Rule", "dialects", "family", "find_dialects", "rule_of"]

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


class Rule(NamedTuple):
    """What one kind of module is called in torch.

    Attributes:
      path: regular expression over our path of the module, such as "conv1/bn".
      torch: its name in torch, with references to the expression's groups.
      flattened: height and width of the map that torch's dense layer takes flattened,
        where we flatten with channels last or have a convolution; None: no such layer.
      begins_at_zero: whether weights may lack all modules of this rule, which are then
        zero: what a net adds to the one that it builds on.
    """

    path: str
    torch: str
    flattened: tuple[int, int] | None = None
    begins_at_zero: bool = False


@dataclasses.dataclass(frozen=True)
class Dialect:
    """The names that one library gives to the modules of one family.

    Attributes:
      rules: the first one that fits a path names it.
      stems: our paths of the convolution that takes the images; a model has one of
        them.
      head: our path of the layer that gives the logits.
      optional: fields of the model that are false where weights lack some modules, and
        what those modules' names begin with, in our names and in torch's.
      library: what `PublishedWeights.source` begins with for weights that have these
        names; empty where several libraries have them.
      twin: another model whose weights have the same names and shapes under this
        dialect, so that only the file can tell which of the two it is of; or empty.
    """

    rules: tuple[Rule, ...]
    stems: tuple[str, ...] = ("conv1/conv", "conv1/conv1/conv")
    head: str = "head"
    optional: Mapping[str, str] = dataclasses.field(default_factory=dict)
    library: str = ""
    twin: str = ""

    @functools.cached_property
    def stem_kernels(self) -> tuple[str, ...]:
        """The kernels that may take the images, by torch's names."""
        return tuple(rule_of(self, f"{stem}/kernel")[0] for stem in self.stems)

    @functools.cached_property
    def entries(self) -> re.Pattern[str]:
        """Matches torch's names of parameters, with any numbers and words in them."""
        modules = (
            r"\w+".join(map(re.escape, re.split(r"\{.*?\}", rule.torch)))
            for rule in self.rules
        )
        leaves = "weight|bias|running_mean|running_var"
        return re.compile(rf"(?:{'|'.join(modules)})\.(?:{leaves})")


# From a model's name to the dialects that its weights come in.
Family = Callable[[str], tuple[Dialect, ...]]

_FAMILIES: dict[str, Family] = {}


def family(pattern: str) -> Callable[[Family], Family]:
    """Registers the dialects of the models whose names match a regular expression.

    Each file of this package registers its own; all of them are imported automatically.

    Args:
      pattern: matches whole names, and none that another family's matches.

    Returns:
      The decorator, which returns the function unchanged.
    """

    def add(function: Family) -> Family:
        _FAMILIES[pattern] = function
        return function

    return add


@functools.cache
def find_dialects(name: str) -> tuple[Dialect, ...]:
    """Returns the dialects of a model, or none: all are read, the first is written."""
    for pattern, function in _FAMILIES.items():
        if re.fullmatch(pattern, name):
            return function(name)
    return ()


def dialects(name: str) -> tuple[Dialect, ...]:
    """Returns the dialects of a model: all are read, the first is written.

    Raises:
      WeightsError: if there are none.
    """
    found = find_dialects(name)
    if not found:
        raise WeightsError(f"No torch names are known for the model {name!r}.")
    return found


def rule_of(dialect: Dialect, path: str) -> tuple[str, Rule]:
    """Returns the name in torch of a parameter of ours, and the rule that gives it.

    Raises:
      WeightsError: if no rule fits.
    """
    module, _, leaf = path.rpartition("/")
    for rule in dialect.rules:
        match = re.fullmatch(rule.path, module)
        if match:
            return f"{_fill(rule.torch, match)}.{_LEAVES.get(leaf, leaf)}", rule
    raise WeightsError(f"No torch name is known for the parameter {name_of(path)}.")


def _fill(template: str, match: re.Match[str]) -> str:
    def number(field: re.Match[str]) -> str:
        group, offset = match[int(field[1])], field[2]
        return str(int(group) + int(offset)) if offset else group

    return re.sub(r"\{(\d)([+-]\d+)?\}", number, template)
