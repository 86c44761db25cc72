"""Finds the training programs: `cnn-flax train`, and the package for Python.

In a checkout they are the package `train`, next to this one. An installed package of so
common a name would collide with the `train.py` of many a project: the wheel has it in
the folder `cnn_flax/_programs`, and only a process that asks for it can import it.
"""

import importlib
import importlib.util
import pathlib
import sys
from types import ModuleType

from cnn_flax.installing import install_command

__all__ = ["load"]

_EXTRAS = ("tyro", "grain", "orbax")


def load() -> ModuleType:
    """Imports the package `train`; `import train` works from then on.

        train = cnn_flax.programs.load()
        result = train.fit(train.recipes.load("digits_resnet").config, "runs/digits")

    The import itself is cheap, as `train` imports what it needs when it is used.

    Raises:
      ImportError: if the packages that the programs need are not installed, or if
        another module of the name `train` is imported already.
    """
    here = pathlib.Path(__file__).parent
    folder = here / "_programs"
    if not folder.is_dir():
        folder = here.parent
    if any(importlib.util.find_spec(name) is None for name in _EXTRAS):
        raise ImportError(
            f"The programs need more packages: {install_command('train')}."
        )
    if "train" not in sys.modules and sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))
    train = importlib.import_module("train")
    if train.__file__ is None or pathlib.Path(train.__file__).parent.parent != folder:
        raise ImportError(
            f"Another module of the name train is imported, {train.__file__}: call "
            "cnn_flax.programs.load() before it, or rename it."
        )
    return train
