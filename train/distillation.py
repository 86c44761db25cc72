"""Learning from a teacher: by its answers, or by its features.

The student has all the noise of training, the teacher none; both see the same images,
changed and mixed as they are. Images without labels, where there are some, are learned
from the teacher alone.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

import cnn_flax
from cnn_flax import losses
from train.errors import UserError
from train.objectives import Objective, accuracy, training_pass
from train.semi_supervised import interleave, ramp_up, separate
from train.teacher import ANSWERS, Teacher, Teaching

__all__ = ["Lesson", "distilled", "dkd", "hint", "kd", "regressor"]

Outputs = Mapping[str, jax.Array]
# Of what student and teacher make of the images, `logits` and features by name; of the
# labels, or None; and of the objective's own parameters. It gives the loss.
Lesson = Callable[[Outputs, Outputs, jax.Array | None, Any], jax.Array]


def distilled(
    model: nn.Module,
    teach: Teaching,
    lesson: Lesson,
    *,
    features: tuple[str, ...] = (),
    weight: float = 1.0,
    ramp_up_steps: int = 0,
    axis: str | None = None,
    freeze_bn: bool = False,
) -> Objective:
    """What the lesson says, of the labelled images and of those without labels.

    Args:
      model: the student; gives logits `[N, K]`.
      teach: of `teaching_pass`, with the same features.
      lesson: one of this module's.
      features: names of the intermediates that the lesson compares.
      weight: of the loss of the images without labels.
      ramp_up_steps: steps over which that weight rises.
      axis: the mapped axis that the batch is split over under `jax.pmap`, else None.
      freeze_bn: whether BatchNorm uses its running statistics, and keeps them.

    Returns:
      The objective. Its batch has `image` float `[N, H, W, C]` and `label`, classes int
      `[N]` or probabilities `[N, K]`; where the teacher's answers are known, these as
      `teacher_logits` `[N, K]`; and images without labels, `[ratio * N, H, W, C]`, with
      the same beside them, in `unlabelled`: their `label` is not looked at. Its metrics
      are the `loss` of the labelled images, `accuracy`, and `agreement`, the share of
      them that student and teacher say the same class of; then `unlabelled_loss`,
      without the weight, and `unlabelled_agreement`.
    """
    run = training_pass(model, axis=axis, freeze_bn=freeze_bn, features=features)

    def objective(params, state, batch, key):
        streams = [batch, *([batch["unlabelled"]] if "unlabelled" in batch else [])]
        images = interleave([stream["image"] for stream in streams])
        logits, batch_stats, found = run(params, state, images, key)
        student = {"logits": logits, **found}
        if ANSWERS in batch:
            known = interleave([stream[ANSWERS] for stream in streams])
            teacher = {"logits": known}
        else:
            logits, found = teach(state.teacher, images)
            teacher = {"logits": logits, **found}

        counts = [len(stream["image"]) // len(batch["image"]) for stream in streams]
        students, teachers = _by_stream(student, counts), _by_stream(teacher, counts)
        own, labels = params.get("objective"), batch["label"]
        loss = total = lesson(students[0], teachers[0], labels, own)
        metrics = {
            "loss": loss,
            "accuracy": accuracy(students[0]["logits"], labels),
            "agreement": _agreement(students[0], teachers[0]),
        }
        if "unlabelled" in batch:
            more = lesson(students[1], teachers[1], None, own)
            total = loss + weight * ramp_up(state.step, ramp_up_steps) * more
            metrics["unlabelled_loss"] = more
            metrics["unlabelled_agreement"] = _agreement(students[1], teachers[1])
        changes = {"batch_stats": batch_stats, "memory": state.memory}
        return total, (changes, metrics)

    return objective


def kd(temperature: float, alpha: float, label_smoothing: float = 0.0) -> Lesson:
    """`losses.distillation`: the teacher's softened answers, and the labels.

    Args:
      temperature: T, above 0.
      alpha: the teacher's share, in [0, 1]; without labels it has all.
      label_smoothing: share of each label that is spread evenly, in [0, 1].
    """

    def lesson(student, teacher, labels, own):
        logits = student["logits"]
        loss = losses.distillation(logits, teacher["logits"], temperature=temperature)
        if labels is None:
            return loss
        labelled = losses.cross_entropy(logits, labels, label_smoothing)
        return alpha * loss + (1 - alpha) * labelled

    return lesson


def dkd(
    temperature: float, alpha: float, beta: float, label_smoothing: float = 0.0
) -> Lesson:
    """`losses.decoupled_distillation`, and cross entropy with the labels.

    Without labels there is no target to set apart: the answers are learned as by `kd`.

    Args:
      temperature: T, above 0.
      alpha: weight of the target class against the others.
      beta: weight of the others among themselves.
      label_smoothing: share of each label that is spread evenly, in [0, 1].
    """

    def lesson(student, teacher, labels, own):
        logits, answers = student["logits"], teacher["logits"]
        if labels is None:
            return losses.distillation(logits, answers, temperature=temperature)
        labelled = losses.cross_entropy(logits, labels, label_smoothing)
        return labelled + losses.decoupled_distillation(
            logits, answers, labels, temperature, alpha, beta
        )

    return lesson


def hint(at: str, weight: float, label_smoothing: float = 0.0) -> Lesson:
    """`losses.hint` of features, and cross entropy with the labels.

    The student's features pass a 1x1 convolution to the teacher's channels, whose
    parameters are the objective's own: see `regressor`. Both losses are learned at
    once; Romero et al. 2015 (https://arxiv.org/abs/1412.6550) learn the hint first.

    Args:
      at: name of the features.
      weight: of the hint; without labels it is alone.
      label_smoothing: share of each label that is spread evenly, in [0, 1].
    """

    def lesson(student, teacher, labels, own):
        channels = teacher[at].shape[-1]
        guided: Any = nn.Dense(channels).apply({"params": own}, student[at])
        loss = weight * losses.hint(guided, teacher[at])
        if labels is None:
            return loss
        return loss + losses.cross_entropy(student["logits"], labels, label_smoothing)

    return lesson


def regressor(
    model: nn.Module, teacher: Teacher, at: str, size: int, channels: int
) -> Callable[[jax.Array], Any]:
    """What draws the regressor's parameters, of a key.

    Args:
      model: the student.
      teacher: the teacher.
      at: name of the features.
      size: height and width of the images, in pixels.
      channels: of the student's images.

    Raises:
      UserError: if one of the two has no such features, or their sizes differ.
    """
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.result_type(float))
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    ours = _feature("model", model, variables, image, at)
    image = image.update(shape=(1, size, size, len(teacher.mean)))
    theirs = _feature("teacher", teacher.model, teacher.variables, image, at)
    if ours.shape[:-1] != theirs.shape[:-1]:
        raise UserError(
            f"--hint-at {at}: the model's features are {_size(ours)}, the teacher's "
            f"{_size(theirs)}; they must be alike but for the channels."
        )
    wide = jnp.promote_types(jnp.float32, ours.dtype)
    dense = nn.Dense(theirs.shape[-1], param_dtype=wide)
    return lambda key: dense.init(key, jnp.zeros(ours.shape, ours.dtype))["params"]


def _by_stream(outputs: Outputs, counts: list[int]) -> list[dict[str, jax.Array]]:
    parts = {name: separate(rows, counts) for name, rows in outputs.items()}
    return [{name: rows[i] for name, rows in parts.items()} for i in range(len(counts))]


def _agreement(student: Outputs, teacher: Outputs) -> jax.Array:
    return accuracy(student["logits"], teacher["logits"])


def _feature(
    whose: str, model: nn.Module, variables: Any, image: Any, at: str
) -> jax.ShapeDtypeStruct:
    try:
        found = partial(cnn_flax.features, model, names=[at])
        return jax.eval_shape(found, variables, image)[at]
    except ValueError as error:
        raise UserError(f"--hint-at {at} does not fit the {whose}: {error}") from error


def _size(feature: jax.ShapeDtypeStruct) -> str:
    return " x ".join(map(str, feature.shape[1:]))
