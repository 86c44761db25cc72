"""The weights of a run of `python -m train`, from its folder."""

import contextlib
import dataclasses
import json
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import traverse_util

from cnn_flax.installing import install_command
from cnn_flax.registry import create_model
from cnn_flax.weights.errors import WeightsError
from cnn_flax.weights.variables import Sizes, variable_shapes

__all__ = ["SavedModel", "plainly_named", "read_record", "read_run"]

_FORMAT = 1  # Of config.json.


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A model as it was saved.

    Attributes:
      variables: numpy arrays.
      fields: the fields that the model was created with.
      sizes: its numbers of classes and of input channels.
      image_size: height and width of its images, in pixels.
    """

    variables: dict[str, Any]
    fields: dict[str, Any]
    sizes: Sizes
    image_size: int


def read_run(name: str, folder: pathlib.Path) -> SavedModel:
    """Reads the model of a run's last checkpoint.

    Raises:
      WeightsError: if the folder holds no run, the run is of another model, or it has
        no checkpoint.
    """
    record = read_record(folder, name)
    model = record["model"]
    channels, image_size = record["input"]["channels"], record["input"]["image_size"]
    wanted = variable_shapes(name, model["fields"], channels, image_size)
    # The number of classes may be the model's default.
    num_classes = create_model(name, **model["fields"]).num_classes
    return SavedModel(
        variables=_restore(folder, wanted),
        fields=model["fields"],
        sizes=Sizes(num_classes, channels),
        image_size=image_size,
    )


def read_record(folder: pathlib.Path, name: str | None = None) -> dict[str, Any]:
    """Reads a run's `config.json`.

    Raises:
      WeightsError: if it is not of a run, or the run is of another model than `name`.
    """
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text("utf-8"))
        found = record.get("format")
    except (AttributeError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.") from error
    if found != _FORMAT:
        raise WeightsError(
            f"{path} is not of a run that this version reads: its format is {found}, "
            f"not {_FORMAT}."
        )
    model = record["model"]["name"]
    if name not in (None, model):
        raise WeightsError(f"{folder} is a run of {model}, not of {name}.")
    return record


@contextlib.contextmanager
def plainly_named(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The absolute path of a folder, for Orbax; the folder must exist.

    Orbax takes brackets and wildcards in a path for a pattern, and then saves what it
    cannot restore; tensorstore takes no path that is not UTF-8. Such a folder is
    reached by a temporary link.
    """
    path = folder.absolute()
    if not re.search(r"[*?\[\]\ud800-\udfff]", str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="cnn-flax-") as place:
        link = pathlib.Path(place, "checkpoints")
        link.symlink_to(path, target_is_directory=True)
        yield link


def _restore(folder: pathlib.Path, wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise WeightsError(
            f"The checkpoints of the run {folder} are read with Orbax; install it: "
            f"{install_command('train')}."
        ) from error

    targets = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in wanted.items()}
    target = traverse_util.unflatten_dict(targets, sep="/")
    checkpoints = folder / "checkpoints"
    if not checkpoints.is_dir():
        raise WeightsError(f"The run {folder} has no checkpoint yet.")
    options = ocp.CheckpointManagerOptions(create=False)
    with (
        plainly_named(checkpoints) as path,
        ocp.CheckpointManager(path, options=options) as manager,
    ):
        step = manager.latest_step()
        if step is None:
            raise WeightsError(f"The run {folder} has no checkpoint yet.")
        model = ocp.args.StandardRestore(target)
        try:
            args = ocp.args.Composite(model=model)
            return manager.restore(step, args=args)["model"]
        except (KeyError, ValueError, FileNotFoundError) as error:
            raise WeightsError(
                f"The checkpoint of step {step} in {folder} does not fit the model in "
                f"its config.json: {error}"
            ) from error
