"""Calibration of a run on held-out images: its temperature, and what that changes."""

from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np

from train.data import BadImages, Source, eval_batches, prefetch_to_device
from train.data.open_source import Split
from train.data.select import decode_options, evaluation_images
from train.errors import UserError
from train.learn.parallel import Placement, jit_step
from train.learn.step import make_predict_step
from train.run.evaluation import Evaluation
from train.run.inference import check_run_classes
from train.run.load import LoadedRun, load_run
from train.run.record import is_multi_label, pixel_inputs, run_step_identity
from train.run.run_folder import lock
from train.run.temperature import FILE, fit_temperature, scaled
from train.storage import storing, write_json

__all__ = ["Calibration", "calibrate_run"]


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what it changed on the images that it was fitted on.

    Attributes:
      temperature: divides the logits; above 1 where the model was too sure.
      step: the step of the checkpoint.
      data: the images.
      split: their split.
      images: their number.
      loss_before: mean negative log probability of the labels, in nats.
      loss: the same with the temperature.
      calibration_error_before: expected calibration error, in [0, 1].
      calibration_error: the same with the temperature.
    """

    temperature: float
    step: int
    data: str
    split: str
    images: int
    loss_before: float
    loss: float
    calibration_error_before: float
    calibration_error: float


def calibrate_run(
    run: Path, data: str | None, split: Split, *, batch_size: int | None = None
) -> Calibration:
    """Fits a temperature to a run's last checkpoint, and writes it into its folder.

    Args:
      run: the run's folder.
      data: a data source with the same classes; None for the run's.
      split: the split of held-out images: not those that the model is judged by.
      batch_size: images per step; None for the run's.

    Raises:
      UserError: if the folder holds no run, or the images do not fit.
    """
    loaded = load_run(run)
    if is_multi_label(loaded.record):
        raise UserError(f"{run} has learned several classes per image, not one.")
    own = loaded.config.input.data
    if split != "val" and data in (None, own):
        raise UserError(
            f"--split {split}: the temperature is fitted on held-out images that the "
            "model is not judged by: the split val, which --val-share 0.1 holds out in "
            "training, or other images by --data."
        )
    source = evaluation_images(loaded.config, data, split)
    check_run_classes(loaded, source)
    log_probs, labels = _predicted(loaded, source, batch_size)
    temperature = fit_temperature(log_probs, labels)
    before = _evaluation(scaled(log_probs, 1.0), labels)
    after = _evaluation(scaled(log_probs, temperature), labels)
    calibration = Calibration(
        temperature,
        loaded.step,
        source.spec,
        split,
        len(labels),
        loss_before=before.figures()["loss"],
        loss=after.figures()["loss"],
        calibration_error_before=before.calibration_error(),
        calibration_error=after.calibration_error(),
    )
    with lock(run), storing(run):
        write_json(run / FILE, asdict(calibration))
    return calibration


def _predicted(
    loaded: LoadedRun, source: Source, batch_size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities and labels of the images that can be read."""
    config, inputs = loaded.config, loaded.record["input"]
    placement = Placement()
    step = jit_step(
        make_predict_step(loaded.model, pixel_inputs(loaded.record)),
        run_step_identity("prediction", loaded.record),
    )
    variables = jax.device_put(loaded.variables, placement.replicated)
    batches = eval_batches(
        source,
        batch_size=placement.round_up(batch_size or config.input.batch_size),
        image_size=inputs["image_size"],
        channels=inputs["channels"],
        bad_images=BadImages(len(source), max_share=config.input.max_bad_share),
        **decode_options(config),
    )
    rows, labels = [], []
    for batch in prefetch_to_device(batches, placement.sharded):
        is_image = np.asarray(batch["mask"]) > 0
        rows.append(np.asarray(step(variables, batch["image"]))[is_image])
        labels.append(np.asarray(batch["label"])[is_image])
    return np.concatenate(rows), np.concatenate(labels)


def _evaluation(log_probs: np.ndarray, labels: np.ndarray) -> Evaluation:
    true = np.take_along_axis(log_probs, labels[:, None], 1)
    return Evaluation(
        index=np.arange(len(labels)),
        label=labels,
        prediction=log_probs.argmax(1),
        confidence=np.exp(log_probs.max(1)),
        rank=(log_probs > true).sum(1),
        loss=-true[:, 0],
    )
