"""Distillation: learning from a teacher's logits or from its features.

The student runs in training mode, the teacher in evaluation mode, on the same augmented
and mixed images. For unlabelled images, the teacher is the only target.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

import cnn_flax
from cnn_flax import losses
from train.errors import UserError
from train.learn.inputs import two_streams
from train.learn.label_loss import LabelLoss
from train.learn.method import Method, Setup
from train.learn.objectives import (
    OBJECTIVE,
    Objective,
    accuracy,
    auxiliary_loss,
    training_pass,
    weighted,
)
from train.learn.semi_supervised import interleave, ramp_up, separate
from train.learn.teacher import (
    TEACHER_LOGITS,
    Teacher,
    TeacherPass,
    open_teacher,
    teacher_pass,
)

__all__ = [
    "DistillationLoss",
    "distilled",
    "dkd",
    "hint",
    "kd",
    "make_method",
    "open_named_teacher",
    "regressor",
]

Outputs = Mapping[str, jax.Array]
# Computes the loss from the outputs of student and teacher (`logits`, and features by
# name), the labels or None, and the objective's own parameters. An auxiliary head of
# the student outputs logits only.
DistillationLoss = Callable[[Outputs, Outputs, jax.Array | None, Any], jax.Array]


def open_named_teacher(setup: Setup) -> Teacher:
    """Opens the teacher that `--teacher` names."""
    return open_teacher(
        setup.config.distillation.teacher,
        setup.train,
        size=setup.config.input.trained_size,
        channels=setup.channels,
        dtype=setup.config.network.dtype,
    )


def make_method(setup: Setup) -> Method:
    """The method of `--teacher`."""
    assert setup.teacher is not None
    options = setup.config.distillation
    label_loss = setup.label_loss
    features, init_params = (), None
    match options.distillation:
        case "kd":
            loss = kd(
                options.temperature,
                options.alpha,
                label_loss,
                standardize=options.logit_standardize,
            )
        case "dkd":
            weights = (options.dkd_alpha, options.dkd_beta)
            loss = dkd(
                options.temperature,
                *weights,
                label_loss,
                standardize=options.logit_standardize,
            )
        case "hint":
            loss = hint(options.hint_at, options.hint_weight, label_loss)
            features = (options.hint_at,)
            init_params = regressor(
                setup.model, setup.teacher, options.hint_at, setup.image_shape
            )
    objective = distilled(
        setup.model,
        teacher_pass(setup.teacher, setup.mean, setup.std, features),
        loss,
        features=features,
        weight=setup.config.unlabelled.unlabelled_weight,
        ramp_up_steps=setup.ramp_up_steps,
        **setup.pass_options,
    )
    prepare = setup.labelled_inputs()
    if setup.unlabelled is not None:
        prepare = two_streams(prepare, prepare)
    return Method(objective, prepare, init_params)


def distilled(
    model: nn.Module,
    teach: TeacherPass,
    loss: DistillationLoss,
    *,
    features: tuple[str, ...] = (),
    weight: float = 1.0,
    ramp_up_steps: int = 0,
    axis: str | None = None,
    freeze_bn: bool = False,
    remat: bool = False,
) -> Objective:
    """A distillation loss on labelled images and, with a weight, on unlabelled ones.

    Args:
      model: the student, a module that returns logits `[N, K]`.
      teach: the teacher's pass from `teacher_pass`, with the same features.
      loss: the loss, from `kd`, `dkd` or `hint`.
      features: names of the intermediates that the loss compares.
      weight: weight of the unlabelled images' loss.
      ramp_up_steps: steps over which that weight ramps up.
      axis: mapped axis that the batch is split over under `jax.pmap`; None otherwise.
      freeze_bn: whether BatchNorm uses its running statistics and does not update them.
      remat: whether the backward pass computes the model's stages again.

    Returns:
      The objective. Its batch has `image` float `[N, H, W, C]` and `label`, classes int
      `[N]` or probabilities `[N, K]`; optionally `teacher_logits` `[N, K]`, the
      teacher's cached logits; and optionally `unlabelled`, a batch of `ratio * N`
      images with the same entries, whose `label` is ignored. Its metrics are `loss` and
      `accuracy` of the labelled images, and `agreement`, the share of them for which
      student and teacher predict the same class; with unlabelled images also
      `unlabelled_loss`, unweighted, and `unlabelled_agreement`.
    """
    run = training_pass(
        model, axis=axis, freeze_bn=freeze_bn, remat=remat, features=features
    )

    def objective(params, state, batch, key):
        streams = [batch, *([batch["unlabelled"]] if "unlabelled" in batch else [])]
        images = interleave([stream["image"] for stream in streams])
        outputs = run(params, state, images, key)
        student = {"logits": outputs.logits, **outputs.features}
        if TEACHER_LOGITS in batch:
            cached = interleave([stream[TEACHER_LOGITS] for stream in streams])
            teacher = {"logits": cached}
        else:
            logits, intermediates = teach(state.teacher, images)
            teacher = {"logits": logits, **intermediates}

        counts = [len(stream["image"]) // len(batch["image"]) for stream in streams]
        students, teachers = _by_stream(student, counts), _by_stream(teacher, counts)
        heads = [_by_stream({"logits": rows}, counts) for rows in outputs.auxiliary]
        own, labels = params.get(OBJECTIVE), batch["label"]

        def loss_of(stream, labels):
            """The loss of a stream, as a function of the student's outputs."""
            return lambda student: loss(student, teachers[stream], labels, own)

        labelled = loss_of(0, labels)(students[0])
        total = labelled + auxiliary_loss(loss_of(0, labels), [h[0] for h in heads])
        metrics = {
            "loss": labelled,
            "accuracy": accuracy(students[0]["logits"], labels),
            "agreement": _agreement(students[0], teachers[0]),
        }
        if "unlabelled" in batch:
            added = loss_of(1, None)(students[1])
            metrics["unlabelled_loss"] = added
            metrics["unlabelled_agreement"] = _agreement(students[1], teachers[1])
            added += auxiliary_loss(loss_of(1, None), [h[1] for h in heads])
            total += weighted(weight, ramp_up(state.step, ramp_up_steps) * added)
        updates = {
            "batch_stats": outputs.batch_stats,
            "method_state": state.method_state,
        }
        return total, (updates, metrics)

    return objective


def kd(
    temperature: float,
    alpha: float,
    label_loss: LabelLoss = losses.cross_entropy,
    *,
    standardize: bool = False,
) -> DistillationLoss:
    """`losses.distillation` from softened logits, and cross entropy with the labels.

    Args:
      temperature: T, above 0.
      alpha: weight of the distillation, in [0, 1]; that of the cross entropy is 1 -
        alpha. Without labels the distillation has weight 1.
      label_loss: loss of the labels, a function of logits and labels.
      standardize: whether the logits are standardized before they are softened.
    """
    soften = {"temperature": temperature, "standardize": standardize}

    def loss(student, teacher, labels, own):
        logits = student["logits"]
        soft = losses.distillation(logits, teacher["logits"], **soften)
        if labels is None:
            return soft
        hard = label_loss(logits, labels)
        return weighted(alpha, soft) + weighted(1 - alpha, hard)

    return loss


def dkd(
    temperature: float,
    alpha: float,
    beta: float,
    label_loss: LabelLoss = losses.cross_entropy,
    *,
    standardize: bool = False,
) -> DistillationLoss:
    """`losses.decoupled_distillation`, and cross entropy with the labels.

    Without labels there is no target class to decouple: the loss is that of `kd`.

    Args:
      temperature: T, above 0.
      alpha: weight of the loss between the target class and all others.
      beta: weight of the loss among the other classes.
      label_loss: loss of the labels, a function of logits and labels.
      standardize: whether the logits are standardized before they are softened.
    """
    soften = {"temperature": temperature, "standardize": standardize}

    def loss(student, teacher, labels, own):
        logits, targets = student["logits"], teacher["logits"]
        if labels is None:
            return losses.distillation(logits, targets, **soften)
        hard = label_loss(logits, labels)
        return hard + losses.decoupled_distillation(
            logits, targets, labels, alpha=alpha, beta=beta, **soften
        )

    return loss


def hint(
    at: str, weight: float, label_loss: LabelLoss = losses.cross_entropy
) -> DistillationLoss:
    """`losses.hint` between features, and cross entropy with the labels.

    A 1x1 convolution maps the student's features to the teacher's channels; its
    parameters belong to the objective: see `regressor`. An auxiliary head learns the
    labels alone. Both losses are minimized together; Romero et al. 2015
    (https://arxiv.org/abs/1412.6550) start with the hint.

    Args:
      at: name of the features.
      weight: weight of the hint, which is the only loss without labels.
      label_loss: loss of the labels, a function of logits and labels.
    """

    def loss(student, teacher, labels, own):
        soft = jnp.zeros(())
        if at in student:
            channels = teacher[at].shape[-1]
            guided: Any = nn.Dense(channels).apply({"params": own}, student[at])
            soft = weighted(weight, losses.hint(guided, teacher[at]))
        if labels is None:
            return soft
        return soft + label_loss(student["logits"], labels)

    return loss


def regressor(
    model: nn.Module, teacher: Teacher, at: str, image_shape: Sequence[int]
) -> Callable[[jax.Array], Any]:
    """The initializer of the hint's 1x1 convolution, a function of a key.

    Args:
      model: the student.
      teacher: the teacher.
      at: name of the features.
      image_shape: (height, width, channels) of the student's images.

    Raises:
      UserError: if the model or the teacher has no such features, or their sizes
        differ.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.result_type(float))
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    ours = _feature("model", model, variables, image, at)
    image = image.update(shape=(1, *image_shape[:2], len(teacher.mean)))
    theirs = _feature("teacher", teacher.model, teacher.variables, image, at)
    if ours.shape[:-1] != theirs.shape[:-1]:
        raise UserError(
            f"--hint-at {at}: the model's features are {_size(ours)}, the teacher's "
            f"{_size(theirs)}; they may differ in the channels only."
        )
    wide = jnp.promote_types(jnp.float32, ours.dtype)
    dense = nn.Dense(theirs.shape[-1], param_dtype=wide)
    return lambda key: dense.init(key, jnp.zeros(ours.shape, ours.dtype))["params"]


def _by_stream(outputs: Outputs, counts: list[int]) -> list[dict[str, jax.Array]]:
    """Separates the outputs for labelled and unlabelled images."""
    parts = {name: separate(rows, counts) for name, rows in outputs.items()}
    return [{name: rows[i] for name, rows in parts.items()} for i in range(len(counts))]


def _agreement(student: Outputs, teacher: Outputs) -> jax.Array:
    return accuracy(student["logits"], teacher["logits"])


def _feature(
    whose: str, model: nn.Module, variables: Any, image: Any, at: str
) -> jax.ShapeDtypeStruct:
    try:
        features = partial(cnn_flax.features, model, names=[at])
        return jax.eval_shape(features, variables, image)[at]
    except ValueError as error:
        raise UserError(f"--hint-at {at} does not fit the {whose}: {error}") from error


def _size(feature: jax.ShapeDtypeStruct) -> str:
    return " x ".join(map(str, feature.shape[1:]))
