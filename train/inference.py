"""A run's model, read back, and what it makes of a set or of single images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from cnn_flax.weights import load_pretrained
from train.checkpoint import Checkpoints
from train.config import config_from_json
from train.data import (
    Source,
    eval_batches,
    open_source,
    prefetch_to_device,
    read_image,
)
from train.data.decode import fit, to_channels
from train.errors import UserError
from train.evaluation import Evaluation, evaluate
from train.folder import read_record
from train.parallel import Placement
from train.record import check_classes, pixel_inputs
from train.step import make_eval_step, make_predict_step

__all__ = ["evaluate_run", "predict_images"]


def evaluate_run(
    run: Path, data: str | None = None, *, ema: bool = False
) -> tuple[Evaluation, Source]:
    """Evaluates a run's last checkpoint.

    Args:
      run: its folder.
      data: a source with the same classes; None is the one that it was trained on.
      ema: whether to take the running means of the weights.

    Returns:
      The evaluation, and the test images that it is of.

    Raises:
      UserError: if the folder holds no run, or the classes differ.
    """
    record = _record(run)
    model, variables = _model(run, record, ema)
    config = config_from_json(record["config"])
    source = open_source(data or config.input.data, "test", seed=config.seed)
    check_classes(record, source)
    placement = Placement()
    batches = eval_batches(
        source,
        batch_size=placement.round_up(config.input.batch_size),
        image_size=record["input"]["image_size"],
        channels=record["input"]["channels"],
    )
    step = jax.jit(make_eval_step(model, pixel_inputs(record)))
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
    record = _record(run)
    size, channels = record["input"]["image_size"], record["input"]["channels"]
    images = [to_channels(fit(read_image(path), size), channels) for path in paths]
    model, variables = _model(run, record, ema)
    step = jax.jit(make_predict_step(model, pixel_inputs(record)))
    # One at a time: one compilation whatever the number of files.
    rows = [np.exp(step(variables, image[None])[0]) for image in images]
    return np.stack(rows), record["class_names"]


def _model(run: Path, record: dict[str, Any], ema: bool) -> tuple[nn.Module, Any]:
    model, variables = load_pretrained(record["model"]["name"], run)
    if not ema:
        return model, variables
    if not config_from_json(record["config"]).optimization.ema_decay:
        raise UserError(f"{run} has no running means: it was run without --ema-decay.")
    with Checkpoints(run) as checkpoints:
        return model, checkpoints.restore_ema(variables)


def _record(run: Path) -> dict[str, Any]:
    record = read_record(run)
    if record is None:
        raise UserError(f"{run} holds no run.")
    return record
