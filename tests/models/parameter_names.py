"""The names of every model's parameters and statistics, kept in a file.

Checkpoints of ours are read by these names, so a change of one breaks somebody's run.
`python -m tests.models.parameter_names` writes the file anew.

The file is a tree of modules. Neighbours with one and the same content share an entry
("conv1 conv2": "bias kernel"), models too; "" is an array beside modules.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import cnn_flax
from tests.figures import REFERENCE

FILE = REFERENCE / "parameter_names.json"
COMMAND = "python -m tests.models.parameter_names"


def tree_of(variables: Any) -> dict[str, Any]:
    """Parameters and statistics in one tree, with "" in place of the arrays."""
    tree: dict[str, Any] = {}
    for collection in ("params", "batch_stats"):
        for path, _ in jax.tree.leaves_with_path(variables.get(collection, {})):
            *modules, leaf = (key.key for key in path)
            node = tree
            for module in modules:
                node = node.setdefault(module, {})
            node[leaf] = ""
    return tree


def folded(tree: Any) -> Any:
    """A tree as it stands in the file."""
    if tree == "":
        return tree
    if not any(tree.values()):
        return " ".join(sorted(tree))
    groups = defaultdict(list)
    for name in sorted(tree):
        groups[json.dumps(folded(tree[name]))].append(name)
    return {" ".join(names): json.loads(content) for content, names in groups.items()}


def paths(content: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all arrays below an entry of the file."""
    if content == "":
        yield prefix
        return
    if isinstance(content, str):
        content = {content: ""}
    for names, below in content.items():
        for name in names.split():
            yield from paths(below, f"{prefix}/{name}" if prefix else name)


def kept() -> dict[str, set[str]]:
    """Model to the paths of its parameters and statistics, from the file."""
    return {
        model: set(paths(content))
        for models, content in json.loads(FILE.read_text()).items()
        for model in models.split()
    }


def main() -> None:
    """Writes the file."""
    trees = {}
    for name in cnn_flax.list_models():
        init = cnn_flax.create_model(name).init
        # The names do not depend on the size.
        trees[name] = tree_of(
            jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
        )
    FILE.write_text(json.dumps(folded(trees), indent=1) + "\n")


if __name__ == "__main__":
    main()
