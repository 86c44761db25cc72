"""A run's model, read back, and what it makes of a set or of single images."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from flax import linen as nn

import cnn_flax
from cnn_flax.fold import fold_batch_norm
from cnn_flax.weights import load_pretrained
from train.checkpoint import Checkpoints
from train.config import config_from_json
from train.data import (
    BadImages,
    Source,
    eval_batches,
    open_source,
    prefetch_to_device,
    read_image,
)
from train.data.decode import Interpolation, fit, to_channels
from train.data.sources import Split
from train.errors import UserError
from train.evaluation import Evaluation, evaluate
from train.folder import read_record
from train.forgetting import head_of, with_old_head
from train.images import evaluation_images, reading
from train.inputs import eval_inputs
from train.parallel import Placement
from train.record import check_classes, pixel_inputs
from train.step import make_eval_step, make_predict_step
from train.transfer import find_layers

__all__ = [
    "evaluate_model",
    "evaluate_run",
    "load_record",
    "load_run",
    "predict_images",
]


def load_run(
    run: Path, *, ema: bool = False
) -> tuple[dict[str, Any], nn.Module, Any, int]:
    """Reads a run's last checkpoint.

    Args:
      run: its folder.
      ema: whether to take the running means of the weights.

    Returns:
      What its `config.json` holds, the model, its variables, and the step that they are
      of.

    Raises:
      UserError: if the folder holds no run, or the run has no such means.
      WeightsError: if the run has no checkpoint.
    """
    record = load_record(run)
    model, variables = load_pretrained(record["model"]["name"], run)
    if ema and not config_from_json(record["config"]).optimization.ema_decay:
        raise UserError(f"{run} has no running means: it was run without --ema-decay.")
    with Checkpoints(run) as checkpoints:
        if ema:
            variables = checkpoints.restore_ema(variables)
        return record, model, variables, checkpoints.latest or 0


def load_record(run: Path) -> dict[str, Any]:
    """What a run's `config.json` holds; raises `UserError` where there is none."""
    record = read_record(run)
    if record is None:
        raise UserError(f"{run} holds no run.")
    return record


def evaluate_run(
    run: Path,
    data: str | None = None,
    split: Split | None = None,
    *,
    batch_size: int | None = None,
    ema: bool = False,
    old_head: bool = False,
) -> tuple[Evaluation, Source]:
    """Evaluates a run's last checkpoint.

    Args:
      run: its folder.
      data: a source with the same classes; None is the one that it was trained on.
      split: `train`, `val` or `test`; None is the one that the run is judged on.
      batch_size: images a step; None is the run's.
      ema: whether to take the running means of the weights.
      old_head: whether to take the head that the run was to keep, of `--transfer lwf`,
        on images of the task before.

    Returns:
      The evaluation, and the test images that it is of.

    Raises:
      UserError: if the folder holds no run, or no old head, or the classes differ.
    """
    record, model, variables, _ = load_run(run, ema=ema)
    config = config_from_json(record["config"])
    if old_head:
        model, variables = _with_old_head(run, record, model, variables, data)
        record = {**record, "class_names": record["old_task"]["class_names"]}
    source = evaluation_images(config, data, split)
    _check_classes(record, source, getattr(model, "num_classes", 0))
    rows = batch_size or config.input.batch_size
    model, variables = fold_batch_norm(model, variables)
    placement = Placement()
    batches = eval_batches(
        source,
        batch_size=placement.round_up(rows),
        image_size=record["input"]["image_size"],
        channels=record["input"]["channels"],
        bad_images=BadImages(len(source), max_share=config.input.max_bad_share),
        **reading(config),
    )
    step = jax.jit(make_eval_step(model, pixel_inputs(record)))
    variables = jax.device_put(variables, placement.whole)
    on_device = prefetch_to_device(batches, placement.split)
    return evaluate(step, variables, on_device), source


def evaluate_model(
    name: str,
    data: str,
    *,
    weights: str | None = None,
    split: Split = "test",
    batch_size: int = 64,
) -> tuple[Evaluation, Source]:
    """Evaluates a model with weights that were not trained here.

    Images are prepared as the model's published weights want it. The data's classes
    must be the weights' in number, and are taken to be in the same order.

    Args:
      name: one of `cnn_flax.list_models()`.
      data: a source.
      weights: a file, a folder or an id on the Hub; None is the first published.
      split: which of its images.
      batch_size: images a step.

    Returns:
      The evaluation, and the images that it is of.

    Raises:
      ValueError: if there is no such model, or the weights cannot be had; the types are
        `UnknownModelError` and `WeightsError`.
      UserError: if the classes differ in number.
    """
    info = cnn_flax.model_info(name)
    source = open_source(data, split)
    model, variables = load_pretrained(name, weights)
    classes = getattr(model, "num_classes", None)
    if classes != len(source.class_names):
        raise UserError(
            f"{name} has {classes} classes by its weights, and {source.spec} has "
            f"{len(source.class_names)}."
        )
    model, variables = fold_batch_norm(model, variables)
    placement = Placement()
    batches = eval_batches(
        source,
        batch_size=placement.round_up(batch_size),
        image_size=info.weights[0].image_size if info.weights else info.image_size,
        channels=len(info.mean),
        crop_pct=info.crop_pct,
        interpolation=cast(Interpolation, info.interpolation),
    )
    prepare = partial(eval_inputs, mean=info.mean, std=info.std)
    step = jax.jit(make_eval_step(model, prepare))
    variables = jax.device_put(variables, placement.whole)
    on_device = prefetch_to_device(batches, placement.split)
    return evaluate(step, variables, on_device), source


def predict_images(
    run: Path, paths: Sequence[Path], *, ema: bool = False
) -> tuple[np.ndarray, list[str]]:
    """The classes of image files, by a run's last checkpoint.

    Args:
      run: its folder.
      paths: of n images, of any size.
      ema: whether to take the running means of the weights.

    Returns:
      Probabilities, float `[n, K]`, and the names of the K classes.

    Raises:
      UserError: if the folder holds no run.
      ImageError: if a file cannot be read as an image; names it.
    """
    record, model, variables, _ = load_run(run, ema=ema)
    size, channels = record["input"]["image_size"], record["input"]["channels"]
    options = config_from_json(record["config"]).input
    sized = partial(fit, crop_pct=options.crop_pct, method=options.interpolation)
    images = [to_channels(sized(read_image(p), size), channels) for p in paths]
    model, variables = fold_batch_norm(model, variables)
    step = jax.jit(make_predict_step(model, pixel_inputs(record)))
    # One at a time: one compilation whatever the number of files.
    rows = [np.exp(step(variables, image[None])[0]) for image in images]
    return np.stack(rows), record["class_names"]


def _with_old_head(
    run: Path, record: dict[str, Any], model: nn.Module, variables: Any, data: Any
) -> tuple[nn.Module, Any]:
    if "old_task" not in record:
        raise UserError(f"{run} has no old head: it was run without --transfer lwf.")
    if data is None:
        raise UserError("Give the images of the old task: --data SOURCE")
    old = model.clone(num_classes=record["old_task"]["num_classes"])
    size, channels = record["input"]["image_size"], record["input"]["channels"]
    images = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    shapes = jax.eval_shape(old.init, jax.random.key(0), images)
    head = head_of(find_layers(old, (size, size, channels)), shapes)
    with Checkpoints(run) as checkpoints:
        own = checkpoints.restore_objective({"old_head": head})
    return old, with_old_head(variables, own["old_head"])


def _check_classes(record: dict[str, Any], source: Source, classes: int) -> None:
    """The old task's names are known only where it was a run of ours."""
    if record["class_names"] is not None:
        check_classes(record, source)
    elif len(source.class_names) != classes:
        raise UserError(
            f"The old task has {classes} classes, and {source.spec} has "
            f"{len(source.class_names)}."
        )
