"""The weights of a run of `python -m train`, from its folder."""

import contextlib
import dataclasses
import json
import logging
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from flax import traverse_util

from cnn_flax.installing import install_command
from cnn_flax.registry import UnknownModelError, create_model
from cnn_flax.weights.errors import WeightsError, name_of, reason_of
from cnn_flax.weights.fields import wrong_field
from cnn_flax.weights.variables import Sizes, variable_shapes

__all__ = [
    "UNREADABLE",
    "Restored",
    "SavedModel",
    "last_whole",
    "opened",
    "plainly_named",
    "read_record",
    "read_run",
    "restore_item",
    "unopenable",
    "without_late_errors",
]

T = TypeVar("T")

_log = logging.getLogger("cnn_flax")
_FORMAT = 1  # Of config.json.
_METADATA = "_CHECKPOINT_METADATA"  # Orbax's, of each checkpoint.
_FIELDS = {
    "model.name": str,
    "model.fields": dict,
    "input.image_size": int,
    "input.channels": int,
}

# What Orbax raises for a checkpoint that is damaged, or of another model.
UNREADABLE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError),
    *(LookupError, OSError, RecursionError, TypeError, ValueError),
)
_REASON = 200  # Characters of a reason in a message; Orbax prints whole trees.


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A model as it was saved.

    Attributes:
      variables: numpy arrays.
      fields: the fields that the model was created with.
      sizes: its numbers of classes and of input channels.
      image_size: height and width of its images, in pixels.
      step: the step of the checkpoint that it is from; 0 for one of no run.
    """

    variables: dict[str, Any]
    fields: dict[str, Any]
    sizes: Sizes
    image_size: int
    step: int = 0


class Restored(NamedTuple):
    """What was read of a checkpoint.

    Attributes:
      step: the step of the checkpoint.
      tree: what was read.
      damaged: what is wrong with the later checkpoints, by step.
    """

    step: int
    tree: Any
    damaged: dict[int, str]


def read_run(name: str, folder: pathlib.Path, item: str = "model") -> SavedModel:
    """Reads the model of a run's last checkpoint, or of the last whole one.

    The logger "cnn_flax" warns of checkpoints that are damaged.

    Args:
      name: the model.
      folder: the run's folder.
      item: "model", or "ema" for the moving average of the variables.

    Raises:
      WeightsError: if the folder holds no run, the run is of another model, or it has
        no checkpoint that can be read.
    """
    record = read_record(folder, name)
    model = record["model"]
    channels, image_size = record["input"]["channels"], record["input"]["image_size"]
    try:
        wanted = variable_shapes(name, model["fields"], channels, image_size)
        # The number of classes may be the model's default.
        num_classes = create_model(name, **model["fields"]).num_classes
        targets = {
            path: np.empty(leaf.shape, leaf.dtype) for path, leaf in wanted.items()
        }
    except UnknownModelError:
        raise
    except Exception as error:  # A model raises nearly anything for a wrong field.
        raise WeightsError(
            f"The model of {folder / 'config.json'} cannot be built: "
            f"{reason_of(error)}."
        ) from error
    restored = restore_item(folder, item, traverse_util.unflatten_dict(targets, "/"))
    for step, reason in restored.damaged.items():
        _log.warning(
            "The checkpoint of step %d in %s cannot be read; that of step %d is taken. "
            "The reason: %s",
            *(step, folder, restored.step, reason),
        )
    return SavedModel(
        variables=restored.tree,
        fields=model["fields"],
        sizes=Sizes(num_classes, channels),
        image_size=image_size,
        step=restored.step,
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
    except (AttributeError, OSError, RecursionError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {reason_of(error)}.") from error
    if found != _FORMAT:
        raise WeightsError(
            f"{path} is not of a run that this version reads: its format is "
            f"{None if found is None else name_of(found)}, not {_FORMAT}."
        )
    wrong = wrong_field(record, _FIELDS)
    if not wrong and 0 in (record["input"]["image_size"], record["input"]["channels"]):
        wrong = "its images have no pixels"
    if wrong:
        raise WeightsError(f"{path} is damaged: {wrong}.")
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


def restore_item(
    folder: pathlib.Path, item: str, target: Any, *, step: int | None = None
) -> Restored:
    """Reads a part of a run's last checkpoint, or of the last whole one.

    Args:
      folder: the run's folder.
      item: name of the part, such as "model".
      target: arrays of its structure.
      step: the only checkpoint to read; None for any.

    Raises:
      WeightsError: if there is no checkpoint that can be read.
    """
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise WeightsError(
            f"The checkpoints of the run {folder} are read with Orbax; install it: "
            f"{install_command('train')}."
        ) from error

    checkpoints = folder / "checkpoints"
    if not checkpoints.is_dir():
        raise WeightsError(f"The run {folder} has no checkpoint yet.")
    options = ocp.CheckpointManagerOptions(create=False)
    damaged = {} if step is not None else unopenable(folder)
    with (
        _without(checkpoints, damaged) as path,
        opened(folder, lambda: ocp.CheckpointManager(path, options=options)) as manager,
    ):
        args = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
        found = last_whole(
            folder,
            manager.all_steps() if step is None else [step],
            lambda step: manager.restore(step, args=args)[item],
        )
    later = {at: reason for at, reason in damaged.items() if at > found.step}
    return found._replace(damaged={**found.damaged, **later})


@contextlib.contextmanager
def _without(checkpoints: pathlib.Path, steps: Iterable[int]) -> Iterator[pathlib.Path]:
    """A folder with links to all checkpoints but some; without any, the folder itself.

    Orbax reads the metadata of all when it opens a folder, and fails if one is damaged.
    """
    if not steps:
        with plainly_named(checkpoints) as path:
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="cnn-flax-") as place:
        for path in checkpoints.absolute().iterdir():
            if path.name not in map(str, steps):
                link = pathlib.Path(place, path.name)
                link.symlink_to(path, target_is_directory=path.is_dir())
        yield pathlib.Path(place)


def unopenable(folder: pathlib.Path) -> dict[int, str]:
    """What is wrong with checkpoints whose metadata Orbax cannot read, by step.

    Empty if there is no other checkpoint to take.
    """
    paths = list((folder / "checkpoints").glob(f"*/{_METADATA}"))
    damaged = {
        int(path.parent.name): f"its {_METADATA} is damaged"
        for path in paths
        if path.parent.name.isdecimal() and not _is_object(path)
    }
    return damaged if len(damaged) < len(paths) else {}


def opened(folder: pathlib.Path, open_manager: Callable[[], T]) -> T:
    """Opens a run's checkpoints, of which Orbax reads the metadata at once.

    Raises:
      WeightsError: if that of all is damaged; names them.
    """
    try:
        return open_manager()
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        named = [
            str(path.parent)
            for path in sorted((folder / "checkpoints").glob(f"*/{_METADATA}"))
            if not _is_object(path)
        ]
        which = " and ".join(named) or f"a checkpoint in {folder / 'checkpoints'}"
        raise WeightsError(
            f"{which} cannot be read, as its {_METADATA} is damaged: {_reason(error)}."
        ) from error


def _is_object(path: pathlib.Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, RecursionError, ValueError):
        return False


def last_whole(
    folder: pathlib.Path, steps: Iterable[int], read: Callable[[int], T]
) -> Restored:
    """Reads the last checkpoint, or, where it is damaged, the last whole one.

    Args:
      folder: the run's folder, for messages.
      steps: the steps of its checkpoints.
      read: reads the checkpoint of a step; it may raise whatever Orbax does.

    Raises:
      WeightsError: if there is no checkpoint, or none can be read; names them.
    """
    damaged: dict[int, str] = {}
    first: Exception | None = None
    for step in sorted(set(steps), reverse=True):
        try:
            with without_late_errors():
                return Restored(step, read(step), damaged)
        except UNREADABLE as error:
            damaged[step] = _reason(error)
            first = first or error
    if not damaged:
        raise WeightsError(f"The run {folder} has no checkpoint yet.")
    named = " and ".join(map(str, sorted(damaged)))
    if len(damaged) == 1:
        which = f"The checkpoint of step {named} in {folder} cannot be read, or does"
    else:
        which = f"The checkpoints of steps {named} in {folder} cannot be read, or do"
    raise WeightsError(
        f"{which} not fit the model in its config.json: {damaged[max(damaged)]}"
    ) from first


@contextlib.contextmanager
def without_late_errors() -> Iterator[None]:
    """Hides the tracebacks of other arrays when one cannot be read or written.

    Orbax handles all arrays at once and ends its event loop at the first error. The
    others may fail at any time after that, and report to the loop, which is closed:
    after an error they stay hidden.
    """
    before = sys.unraisablehook

    def report(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)  # Of a coroutine.
        is_orbax = code is not None and "orbax" in code.co_filename
        if not is_orbax and str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = report
    yield
    sys.unraisablehook = before  # Not after an error.


def _reason(error: Exception) -> str:
    """What is wrong, in one line."""
    text = reason_of(error)
    return text if len(text) <= _REASON else f"{text[:_REASON]} ..."
