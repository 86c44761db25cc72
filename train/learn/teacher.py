"""Teachers: frozen models that another model learns from."""

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
from cnn_flax.weights.pretrained import load_identified
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

# Name of the column of the teacher's cached logits.
TEACHER_LOGITS = "teacher_logits"

# Maps the teacher's variables and the student's images to logits, and features by name.
TeacherPass = Callable[[Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model and its weights.

    Attributes:
      spec: what the user wrote, for messages.
      model: a module that returns logits `[N, K]`.
      variables: the model's variables.
      mean: subtracted from the model's images in [0, 1], one value per channel.
      std: images are then divided by it, one value per channel.
    """

    spec: str
    model: nn.Module
    variables: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def logits_shape(self, size: int) -> jax.ShapeDtypeStruct:
        """Shape and dtype of the logits `[K]` for an image of this height and width."""
        image = jnp.zeros((1, size, size, len(self.mean)))
        logits: Any = jax.eval_shape(self.model.apply, self.variables, image)
        return jax.ShapeDtypeStruct(logits.shape[1:], logits.dtype)


def open_teacher(
    spec: str, source: Source, *, size: int, channels: int, dtype: str = "float32"
) -> Teacher:
    """Loads a teacher.

    The classes of a run must be those of the images, by name. Weights from elsewhere
    have no class names: their classes must be as many, and are assumed to be in the
    same order.

    Args:
      spec: the folder of a run, for its last checkpoint; or `MODEL`, for its first
        published weights; or `MODEL=WEIGHTS`, a file, a folder or an id on the Hub.
      source: the images that the teacher will see.
      size: height and width of the images, in pixels.
      channels: number of channels of the images; grey images are repeated for a teacher
        of three channels.
      dtype: the teacher's compute dtype.

    Raises:
      UserError: if the teacher does not exist, or does not fit the images.
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
      mean: subtracted from the student's images, one value per channel.
      std: they were then divided by it, one value per channel.
      features: names of intermediates to return as well.

    Returns:
      A function of the teacher's variables and the student's images `[N, H, W, C]`,
      which it renormalises for the teacher. It returns logits, and features by name.
      The variables are an argument so that they do not become constants of the compiled
      program.
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
    """The images with a placeholder for the logits, which takes no memory."""
    room = np.broadcast_to(np.zeros((), logits.dtype), (len(source), *logits.shape))
    return source.with_columns(**{TEACHER_LOGITS: room})


def _renormalised(
    images: jax.Array, mean: Sequence[float], std: Sequence[float], teacher: Teacher
) -> jax.Array:
    """Images normalised with `mean` and `std`, renormalised for the teacher."""
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
        message = (
            f"--teacher {spec} is not a run's folder, and {name!r} is not a model."
        )
        raise UserError(f"{message} {near}".rstrip())
    if equals and not weights:
        raise UserError(f"--teacher {spec} names no weights after the =.")
    identified = identify_weights(name, weights or None)
    if identified.path.is_dir():
        return _from_run(spec, name, identified.path, source, dtype)
    model, variables = load_identified(identified, dtype=dtype)
    return Teacher(spec, model, variables, identified.mean, identified.std)


def _from_run(spec: str, name: str, run: Path, source: Source, dtype: str) -> Teacher:
    record = read_record(run)
    if record is None or "class_names" not in record:
        raise UserError(
            f"--teacher {spec} holds no run. For weights, give MODEL=WEIGHTS."
        )
    try:
        check_classes(source, record["class_names"])
    except UserError as error:
        raise UserError(f"--teacher {spec} does not fit. {error}") from error
    if record.get("multi_label"):
        raise UserError(
            f"--teacher {spec} has learned several classes per image; a teacher has "
            "one."
        )
    name, inputs = name or record["model"]["name"], record["input"]
    model, variables = load_pretrained(name, run, dtype=dtype)
    return Teacher(spec, model, variables, tuple(inputs["mean"]), tuple(inputs["std"]))
