"""The registered models as their files declare them, read without importing JAX."""

import ast
import importlib.resources
from collections.abc import Iterator
from typing import Any, NamedTuple

from cnn_flax.registry import IMAGE_SIZE

__all__ = ["CatalogueEntry", "catalogue"]


class CatalogueEntry(NamedTuple):
    """What a decorator `@register(...)` says: see `cnn_flax.registry.Registration`."""

    family: str
    paper: str
    image_size: int


def catalogue() -> dict[str, CatalogueEntry]:
    """The entry of each model of this package, by its name, sorted."""
    folder = importlib.resources.files("cnn_flax") / "models"
    files = [file for file in folder.iterdir() if file.name.endswith(".py")]
    return dict(sorted(entry for file in files for entry in _declared(file)))


def _declared(file: Any) -> Iterator[tuple[str, CatalogueEntry]]:
    """The names and entries of a file's registered functions."""
    body = ast.parse(file.read_text("utf-8")).body
    constants = {
        node.targets[0].id: node.value.value
        for node in body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }

    def value(node: Any) -> Any:
        return constants[node.id] if isinstance(node, ast.Name) else node.value

    for function in body:
        for call in getattr(function, "decorator_list", ()):
            if getattr(getattr(call, "func", None), "id", "") == "register":
                fields = {k.arg: value(k.value) for k in call.keywords}
                family = file.name.removesuffix(".py")
                fields = {"family": family, "image_size": IMAGE_SIZE, **fields}
                yield function.name, CatalogueEntry(**fields)
