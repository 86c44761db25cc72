"""A tree of NNX modules that holds a Linen model's variables and runs its code."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from flax import nnx, traverse_util

__all__ = ["LinenNode"]

_TYPES = {"params": nnx.Param, "batch_stats": nnx.BatchStat}


class LinenNode(nnx.Module):
    """One module of a Linen model: its variables, and its submodules by their names.

    The root is called as the model is. What replaces a submodule is called in its
    place, with the input alone. A node below the root only holds variables, and its
    `deterministic` counts for the part below it: `m.stage1_block1.eval()` freezes its
    statistics.

    Attributes:
      deterministic: whether to evaluate, which is how a model begins; `m.train()` and
        `m.eval()` set it.
    """

    def __init__(
        self,
        model: nn.Module | None,
        variables: Mapping[str, Any],
        rngs: nnx.Rngs | None = None,
    ):
        self._linen = nnx.static(model)
        self.deterministic = True
        self.rngs = nnx.data(None if rngs is None else rngs.fork())
        for collection, tree in variables.items():
            for name, value in tree.items():
                if not isinstance(value, Mapping):
                    setattr(self, name, _TYPES[collection](value))
        names = {n for tree in variables.values() for n in tree}
        for name in sorted(names):
            below = {c: t[name] for c, t in variables.items() if name in t}
            below = {c: t for c, t in below.items() if isinstance(t, Mapping)}
            if below:
                setattr(self, name, LinenNode(None, below))

    def set_view(self, deterministic: bool | None = None, **rest: Any) -> dict:
        """Sets the mode, for `nnx.view`."""
        if deterministic is not None:
            self.deterministic = deterministic
        return rest

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """The model's result; in training its statistics change in place.

        Args:
          *args: the model's, images float `[N, H, W, C]`.
          **arguments: further ones of the model's call.

        Raises:
          TypeError: if this is not the root.
        """
        if self._linen is None:
            raise TypeError("A submodule of a model only holds its variables.")
        nodes: dict[tuple[str, ...], LinenNode] = {}
        others: dict[tuple[str, ...], Callable] = {}
        found: dict[tuple[str, ...], nnx.Variable] = {}
        _gather(self, (), nodes, others, found)
        flat = {path: variable[...] for path, variable in found.items()}
        variables = traverse_util.unflatten_dict(flat)

        def intercept(call, args, arguments, context):
            path = context.module.path
            if context.method_name != "__call__":
                return call(*args, **arguments)
            if path in others:
                return others[path](*args)
            if path in nodes and nodes[path].deterministic:
                if "train" in arguments:
                    arguments = {**arguments, "train": False}
                if "use_running_average" in arguments:
                    arguments = {**arguments, "use_running_average": True}
            return call(*args, **arguments)

        train = arguments.pop("train", not self.deterministic)
        rngs = {}
        if train and self.rngs is not None:
            rngs = {"dropout": self.rngs.dropout()}
        with nn.intercept_methods(intercept):
            result, new = self._linen.apply(
                variables,
                *args,
                train=train,
                rngs=rngs,
                mutable=["batch_stats"] if train else [],
                **arguments,
            )
        for path, value in traverse_util.flatten_dict(dict(new)).items():
            found[path][...] = value
        return result


def _gather(node, path, nodes, others, found) -> None:
    """Sorts what a tree holds by its path in the Linen model."""
    nodes[path] = node
    for name, value in vars(node).items():
        if name.startswith("_") or name in ("deterministic", "rngs"):
            continue
        below = (*path, name)
        if isinstance(value, nnx.Variable):
            is_statistic = isinstance(value, nnx.BatchStat)
            found["batch_stats" if is_statistic else "params", *below] = value
        elif isinstance(value, LinenNode) and value._linen is None:
            _gather(value, below, nodes, others, found)
        elif callable(value):
            others[below] = value
