"""A frozen model that another one learns from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import cnn_flax
from cnn_flax.registry import nearest
from cnn_flax.weights import WeightsError, load_pretrained
from cnn_flax.weights.identify import identify_weights
from train.config_file import read_record
from train.data import Source
from train.data.source import check_classes
from train.errors import UserError

__all__ = [
    "TEACHER_LOGITS",
    "Teacher",
    "TeacherPass",
    "open_teacher",
    "teacher_pass",
    "with_room_for_logits",
]

# Name of the teacher's cached logits in a batch.
TEACHER_LOGITS = "teacher_logits"

# From the teacher's variables and the student's images: logits, and features by name.
TeacherPass = Callable[[Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model and its weights.

    Attributes:
      spec: what the user wrote, for messages.
      model: a module that returns logits `[N, K]`.
      variables: of the model.
      mean: what its images in [0, 1] are normalised with, one value per channel.
      std: what they are then divided by, one value per channel.
    """

    spec: str
    model: nn.Module
    variables: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def logits_shape(self, size: int) -> jax.ShapeDtypeStruct:
        """Shape and dtype of its logits `[K]` for an image of this height and width."""
        image = jnp.zeros((1, size, size, len(self.mean)))
        logits: Any = jax.eval_shape(self.model.apply, self.variables, image)
        return jax.ShapeDtypeStruct(logits.shape[1:], logits.dtype)


def open_teacher(
    spec: str, source: Source, *, size: int, channels: int, dtype: str = "float32"
) -> Teacher:
    """Loads a teacher.

    A run must have the images' classes, by name. Weights from elsewhere name no
    classes: there must be as many, and they are taken to be in the same order.

    Args:
      spec: the folder of a run, for its last checkpoint; or `MODEL`, for its first
        published weights; or `MODEL=WEIGHTS`, a file, a folder or an id on the Hub.
      source: the images that it will see.
      size: their height and width, in pixels.
      channels: their channels; grey images are repeated for a teacher of three.
      dtype: the teacher's compute dtype.

    Raises:
      UserError: if there is no such teacher, or it does not fit the images.
    """
    try:
        if Path(spec).expanduser().is_dir():
            teacher = _from_run(spec, "", Path(spec).expanduser(), source, dtype)
        else:
            teacher = _from_weights(spec, source, dtype)
    except WeightsError as error:
        raise UserError(f"--teacher {spec}: {error}") from error
    if channels not in (1, len(teacher.mean)):
        raise UserError(
            f"--teacher {spec} takes images of {len(teacher.mean)} channels, and those "
            f"of {source.spec} have {channels}."
        )
    try:
        (classes,) = teacher.logits_shape(size).shape
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--teacher {spec} cannot take images of {size} x {size}: {error}"
        ) from error
    if classes != len(source.class_names):
        raise UserError(
            f"--teacher {spec} has {classes} classes, and {source.spec} has "
            f"{len(source.class_names)}."
        )
    return teacher


def teacher_pass(
    teacher: Teacher,
    mean: Sequence[float],
    std: Sequence[float],
    features: Sequence[str] = (),
) -> TeacherPass:
    """The teacher's forward pass, in evaluation mode.

    Args:
      teacher: the teacher.
      mean: what the student's images were normalised with.
      std: what they were then divided by.
      features: names of intermediates to return as well.

    Returns:
      A function of the teacher's variables, which are an argument so that they do not
      become constants of the compiled program, and of the student's images
      `[N, H, W, C]`, which it renormalises for the teacher. It returns logits, and
      features by name.
    """
    collections = ["intermediates"] if features else []

    def run(variables, images):
        result: Any = teacher.model.apply(
            variables, _renormalised(images, mean, std, teacher), mutable=collections
        )
        logits, new = result
        return logits, {name: new["intermediates"][name][0] for name in features}

    return run


def with_room_for_logits(source: Source, logits: jax.ShapeDtypeStruct) -> Source:
    """The images with a placeholder for each one's logits, which takes no memory."""
    room = np.broadcast_to(np.zeros((), logits.dtype), (len(source), *logits.shape))
    return source.with_columns(**{TEACHER_LOGITS: room})


def _renormalised(
    images: jax.Array, mean: Sequence[float], std: Sequence[float], teacher: Teacher
) -> jax.Array:
    """Images that were normalised with `mean` and `std`, normalised for the teacher."""
    if (tuple(mean), tuple(std)) == (teacher.mean, teacher.std):
        return images
    scale = np.divide(std, teacher.std)
    shift = np.divide(np.subtract(mean, teacher.mean), teacher.std)
    channels = (1, 1, 1, -1)
    scale, shift = (
        jnp.asarray(x, images.dtype).reshape(channels) for x in (scale, shift)
    )
    return images * scale + shift


def _from_weights(spec: str, source: Source, dtype: str) -> Teacher:
    name, equals, weights = spec.partition("=")
    if name not in cnn_flax.list_models():
        near = nearest(name, cnn_flax.list_models())
        message = f"--teacher {spec} is no folder of a run, and {name!r} is no model."
        raise UserError(f"{message} {near}".rstrip())
    if equals and not weights:
        raise UserError(f"--teacher {spec} names no weights after the =.")
    known = identify_weights(name, weights or None)
    if known.path.is_dir():
        return _from_run(spec, name, known.path, source, dtype)
    fields = {**known.fields, "dtype": dtype}
    model, variables = load_pretrained(name, known.path, **fields)
    return Teacher(spec, model, variables, known.mean, known.std)


def _from_run(spec: str, name: str, run: Path, source: Source, dtype: str) -> Teacher:
    record = read_record(run)
    if record is None or "class_names" not in record:
        raise UserError(f"--teacher {spec} holds no run. Weights are MODEL=WEIGHTS.")
    try:
        check_classes(source, record["class_names"])
    except UserError as error:
        raise UserError(f"--teacher {spec} does not fit. {error}") from error
    name, inputs = name or record["model"]["name"], record["input"]
    model, variables = load_pretrained(name, run, dtype=dtype)
    return Teacher(spec, model, variables, tuple(inputs["mean"]), tuple(inputs["std"]))
