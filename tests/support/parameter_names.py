"""The names of every model's parameters and statistics, recorded in a file.

Our checkpoints are read by these names, so changing one breaks somebody's run.
`python -m tests.support.parameter_names` writes the file again.

The file is a tree of modules. Modules with the same content share an entry
("conv1 conv2": "bias kernel"), and so do models; "" is an array next to modules.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import cnn_flax
from tests.support.figures import REFERENCE

FILE = REFERENCE / "parameter_names.json"
COMMAND = "python -m tests.support.parameter_names"


def tree_of(variables: Any) -> dict[str, Any]:
    """Parameters and statistics in one tree, with "" instead of the arrays."""
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
    """A tree in the file's format."""
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


def recorded() -> dict[str, set[str]]:
    """From each model to the paths of its parameters and statistics in the file."""
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
