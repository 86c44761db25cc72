"""A model that another learns from, and that does not learn itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import cnn_flax
from cnn_flax.registry import nearest
from cnn_flax.weights import WeightsError, load_pretrained, read_checkpoint
from cnn_flax.weights.identify import origin_of
from cnn_flax.weights.sources import find, find_published
from train.data import Source
from train.errors import UserError
from train.folder import read_record
from train.record import check_classes

__all__ = [
    "ANSWERS",
    "Teacher",
    "Teaching",
    "expecting_answers",
    "open_teacher",
    "teaching_pass",
]

# What kept answers are called beside their images.
ANSWERS = "teacher_logits"

# Of the teacher's variables and the student's images: logits, and features by name.
Teaching = Callable[[Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model and its weights.

    Attributes:
      spec: what the user wrote to get it, for messages.
      model: gives logits `[N, K]`.
      variables: of the model.
      mean: what its images in [0, 1] are normalised with, one number a channel.
      std: likewise.
    """

    spec: str
    model: nn.Module
    variables: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def answer(self, size: int) -> jax.ShapeDtypeStruct:
        """What it says of an image of that height and width: logits `[K]`."""
        image = jnp.zeros((1, size, size, len(self.mean)))
        logits: Any = jax.eval_shape(self.model.apply, self.variables, image)
        return jax.ShapeDtypeStruct(logits.shape[1:], logits.dtype)


def open_teacher(
    spec: str, source: Source, *, size: int, channels: int, dtype: str = "float32"
) -> Teacher:
    """Reads a teacher's weights.

    The classes of a run must be the images', by name. Weights from elsewhere name
    none: their classes must be as many, and are taken to be in the same order.

    Args:
      spec: the folder of a run, of which the last checkpoint is taken; or `MODEL`, for
        its first published weights; or `MODEL=WEIGHTS`, a file, a folder or an id on
        the Hub.
      source: the images that it is to answer to.
      size: their height and width, in pixels.
      channels: their number; grey ones are repeated for a teacher of three.
      dtype: what the teacher computes in.

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
        (classes,) = teacher.answer(size).shape
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


def teaching_pass(
    teacher: Teacher,
    mean: Sequence[float],
    std: Sequence[float],
    features: Sequence[str] = (),
) -> Teaching:
    """The teacher in evaluation: no dropout, no drop path, its running statistics.

    Args:
      teacher: the teacher.
      mean: what the student's images were normalised with.
      std: likewise.
      features: names of intermediates that are wanted beside.

    Returns:
      A function of the teacher's variables, which are its argument lest they become
      constants of the compiled program, and of the student's images `[N, H, W, C]`,
      which it normalises for the teacher. It returns logits, and features by name.
    """
    collections = ["intermediates"] if features else []

    def run(variables, images):
        result: Any = teacher.model.apply(
            variables, _renormalised(images, mean, std, teacher), mutable=collections
        )
        logits, new = result
        return logits, {name: new["intermediates"][name][0] for name in features}

    return run


def expecting_answers(source: Source, answer: jax.ShapeDtypeStruct) -> Source:
    """The images with room for an answer beside each, which takes no memory."""
    room = np.broadcast_to(np.zeros((), answer.dtype), (len(source), *answer.shape))
    return replace(source, beside={**source.beside, ANSWERS: room})


def _renormalised(
    images: jax.Array, mean: Sequence[float], std: Sequence[float], teacher: Teacher
) -> jax.Array:
    """Images normalised with `mean` and `std`, as the teacher knows them."""
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
    info = cnn_flax.model_info(name)
    entry = info.weights[0] if info.weights else None
    path = find(weights) if weights else find_published(name)
    if path.is_dir():
        return _from_run(spec, name, path, source, dtype)
    if weights:
        origin = origin_of(name, weights, path, read_checkpoint(path))
        entry = origin.entry if origin else None
    fields = {**(entry.fields if entry else {}), "dtype": dtype}
    model, variables = load_pretrained(name, path, **fields)
    of = entry or info
    return Teacher(spec, model, variables, tuple(of.mean), tuple(of.std))


def _from_run(spec: str, name: str, run: Path, source: Source, dtype: str) -> Teacher:
    record = read_record(run)
    if record is None or "class_names" not in record:
        raise UserError(f"--teacher {spec} holds no run. Weights are MODEL=WEIGHTS.")
    try:
        check_classes(record, source)
    except UserError as error:
        raise UserError(f"--teacher {spec} does not fit. {error}") from error
    name, inputs = name or record["model"]["name"], record["input"]
    model, variables = load_pretrained(name, run, dtype=dtype)
    return Teacher(spec, model, variables, tuple(inputs["mean"]), tuple(inputs["std"]))
