"""The architecture, as CONTRIBUTING draws it, read off the imports."""

import ast
import pathlib
from graphlib import TopologicalSorter

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("cnn_flax", "train", "benchmarks")

# The rooms of each package, lowest first: a module imports from its own room and from
# lower ones. Modules in no room are the ground floor.
LIBRARY = (
    "layers/cpu",
    "layers",
    "models",
    "augment",
    "analysis",
    "weights",
    "export",
    "publish",
    "nnx",
)
PROGRAMS = ("data", "learn", "run", "noisy_student", "recipes", "api", "commands")


def modules():
    """Path of each module by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    return found


def imports_of(path):
    """The dotted names that a file imports, in functions too, not for type checking."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows():
    """From each module to those that it imports.

    A package's `__init__` hands on names of its own modules: these are no arrows.
    """
    known = modules()
    graph = {}
    for module, path in known.items():
        targets = set()
        for name in imports_of(path):
            while name and name not in known:
                name = name.rpartition(".")[0]
            is_own = path.name == "__init__.py" and name.startswith(f"{module}.")
            if name and name != module and not is_own:
                targets.add(name)
        graph[module] = targets
    return graph


def floor_of(module):
    """Height of a module: the package's, then the room's."""
    package, *rest = module.split(".")
    rooms = LIBRARY if package == "cnn_flax" else PROGRAMS
    rest = "/".join(rest)
    inside = (i for i, room in enumerate(rooms, 1) if f"{rest}/".startswith(f"{room}/"))
    return PACKAGES.index(package), next(inside, 0)


def test_there_is_no_circle():
    # It raises CycleError, which names the circle.
    assert list(TopologicalSorter(arrows()).static_order())


def test_arrows_run_from_a_package_to_those_below_it():
    wrong = [
        f"{module} imports {target}"
        for module, targets in arrows().items()
        for target in targets
        if floor_of(target)[0] > floor_of(module)[0]
    ]
    assert not wrong


def test_rooms_import_from_lower_rooms_only():
    # On the ground of `train`, the entry point alone calls the commands; the library's
    # ground has its face and its command line, which stand above its rooms.
    above = ("train.__main__",) + tuple(
        f"cnn_flax.{name}"
        for name in ("cli", "cli_commands", "fold", "gallery", "info", "prediction")
    )
    wrong = [
        f"{module} imports {target}"
        for module, targets in arrows().items()
        for target in targets
        if floor_of(target)[0] == floor_of(module)[0]
        and floor_of(target) > floor_of(module)
        and module not in (*above, *PACKAGES)
        and not module.startswith("benchmarks")
    ]
    assert not wrong


def test_published_weights_are_a_leaf():
    assert not arrows()["cnn_flax.published"]


def test_docs_hold_nothing_that_runs():
    assert not list((ROOT / "docs").rglob("*.py"))
