"""A run's model, read back, and what it makes of a set or of single images."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_flax.weights import load_pretrained
from train.config import config_from_json
from train.data import (
    BadImages,
    Source,
    eval_batches,
    prefetch_to_device,
    read_image,
)
from train.data.decode import fit, to_channels
from train.data.sources import Split
from train.errors import UserError
from train.evaluation import Evaluation, evaluate
from train.folder import read_record
from train.images import evaluation_images, reading
from train.parallel import Placement
from train.record import check_classes, pixel_inputs
from train.step import make_eval_step, make_predict_step

__all__ = ["evaluate_run", "predict_images"]


def evaluate_run(
    run: Path, data: str | None = None, split: Split | None = None
) -> tuple[Evaluation, Source]:
    """Evaluates a run's last checkpoint.

    Args:
      run: its folder.
      data: a source with the same classes; None is the one that it was trained on.
      split: `train`, `val` or `test`; None is the one that the run is judged on.

    Returns:
      The evaluation, and the test images that it is of.

    Raises:
      UserError: if the folder holds no run, or the classes differ.
    """
    record = _record(run)
    model, variables = load_pretrained(record["model"]["name"], run)
    config = config_from_json(record["config"])
    source = evaluation_images(config, data, split)
    check_classes(record, source)
    placement = Placement()
    placement.check(config.input.batch_size)
    batches = eval_batches(
        source,
        batch_size=config.input.batch_size,
        image_size=record["input"]["image_size"],
        channels=record["input"]["channels"],
        bad_images=BadImages(len(source), max_share=config.input.max_bad_share),
        **reading(config),
    )
    step = jax.jit(make_eval_step(model, pixel_inputs(record)))
    variables = jax.device_put(variables, placement.whole)
    on_device = prefetch_to_device(batches, placement.split)
    return evaluate(step, variables, on_device), source


def predict_images(run: Path, paths: Sequence[Path]) -> tuple[np.ndarray, list[str]]:
    """The classes of image files, by a run's last checkpoint.

    Args:
      run: its folder.
      paths: of n images, of any size.

    Returns:
      Probabilities, float `[n, K]`, and the names of the K classes.

    Raises:
      UserError: if the folder holds no run.
      ImageError: if a file cannot be read as an image; names it.
    """
    record = _record(run)
    size, channels = record["input"]["image_size"], record["input"]["channels"]
    options = config_from_json(record["config"]).input
    sized = partial(fit, crop_pct=options.crop_pct, method=options.interpolation)
    images = [to_channels(sized(read_image(p), size), channels) for p in paths]
    model, variables = load_pretrained(record["model"]["name"], run)
    step = jax.jit(make_predict_step(model, pixel_inputs(record)))
    # One at a time: one compilation whatever the number of files.
    rows = [np.exp(step(variables, image[None])[0]) for image in images]
    return np.stack(rows), record["class_names"]


def _record(run: Path) -> dict[str, Any]:
    record = read_record(run)
    if record is None:
        raise UserError(f"{run} holds no run.")
    return record
