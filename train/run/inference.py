"""Inference with a trained model: evaluation on a data source, and prediction."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from flax import linen as nn

import cnn_flax
from cnn_flax.fold import fold_batch_norm
from cnn_flax.weights.identify import identify_weights
from cnn_flax.weights.preprocessing import allow_pixels
from cnn_flax.weights.pretrained import load_identified
from cnn_flax.weights.runs import restore_item
from train.config_file import config_to_json
from train.console import program_name
from train.data import (
    BadImages,
    DecodeError,
    Source,
    eval_batches,
    open_source,
    prefetch_to_device,
    read_image,
)
from train.data.decode import CropMode, Interpolation, fit, to_channels
from train.data.open_source import Split
from train.data.select import decode_options, evaluation_images
from train.data.source import check_classes
from train.errors import UserError
from train.learn.forgetting import head_of, with_old_head
from train.learn.inputs import Batch, eval_inputs
from train.learn.parallel import Placement, jit_step
from train.learn.step import evaluated, make_eval_step, make_predict_step
from train.learn.transfer import find_layers
from train.run.evaluation import AnyEvaluation, evaluate
from train.run.load import LoadedRun, load_run
from train.run.record import (
    is_multi_label,
    pixel_inputs,
    run_step_identity,
    step_identity,
)
from train.run.temperature import scaled, temperature_of
from train.run.views import TTA, View, loaded_size, make_views, mean_log_probs

__all__ = ["check_run_classes", "evaluate_model", "evaluate_run", "predict_images"]


def evaluate_run(
    run: Path,
    data: str | None = None,
    split: Split | None = None,
    *,
    batch_size: int | None = None,
    ema: bool = False,
    old_head: bool = False,
    calibrated: bool = False,
    tta: TTA = "none",
) -> tuple[AnyEvaluation, Source]:
    """Evaluates a run's last checkpoint.

    Args:
      run: the run's folder.
      data: a data source with the same classes; None for the run's.
      split: `train`, `val` or `test`; None for the split that the run evaluates on.
      batch_size: images per step; None for the run's.
      ema: whether to evaluate the moving average of the weights.
      old_head: whether to evaluate the old head of a run with `--transfer lwf`, on
        images of the old task.
      calibrated: whether to divide the logits by the run's temperature.
      tta: test-time augmentation; see `train.run.views.make_views`.

    Returns:
      The evaluation, and the images.

    Raises:
      UserError: if the folder holds no run, the run has no moving average, no old head
        or no temperature, or the classes differ.
    """
    loaded = load_run(run, ema=ema)
    temperature = 1.0
    if calibrated:
        found = None if ema or old_head else temperature_of(run, loaded.step)
        if found is None:
            raise UserError(
                f"{run} is not calibrated at step {loaded.step}: "
                f"{program_name()} calibrate {run}. A temperature is of the weights "
                "themselves, not of their moving average or an old head."
            )
        temperature = found
    if old_head:
        loaded = _with_old_head(run, loaded, data)
    source = evaluation_images(loaded.config, data, split)
    check_run_classes(loaded, source)
    config, inputs = loaded.config, loaded.record["input"]
    if tta != "none" and source.multi_label:
        raise UserError("--tta is for images with one class each.")
    evaluation = _evaluate(
        loaded.model,
        loaded.variables,
        _run_views(loaded, tta),
        source,
        _identity_of_run("evaluation", loaded, tta, temperature=temperature),
        temperature=temperature,
        batch_size=batch_size or config.input.batch_size,
        image_size=loaded_size(tta, inputs["image_size"]),
        channels=inputs["channels"],
        bad_images=BadImages(len(source), max_share=config.input.max_bad_share),
        **decode_options(config),
    )
    return evaluation, source


def evaluate_model(
    name: str,
    data: str,
    *,
    weights: str | None = None,
    split: Split = "test",
    batch_size: int = 64,
    tta: TTA = "none",
) -> tuple[AnyEvaluation, Source]:
    """Evaluates a model with published weights, or with weights from a file.

    Images are preprocessed as the weights expect. The data must have as many classes as
    the weights, and they are assumed to be in the same order.

    Args:
      name: one of `cnn_flax.list_models()`.
      data: a data source.
      weights: a file, a folder or an id on the Hub; None for the first published ones.
      split: `train`, `val` or `test`.
      batch_size: images per step.
      tta: test-time augmentation; see `train.run.views.make_views`.

    Returns:
      The evaluation, and the images.

    Raises:
      UnknownModelError: if the model does not exist.
      WeightsError: if the weights cannot be loaded.
      UserError: if the numbers of classes differ.
    """
    cnn_flax.model_info(name)  # Raises if the model does not exist.
    source = open_source(data, split)
    if source.multi_label:
        raise UserError(
            f"{source.spec} has several classes per image, and {name}'s weights are "
            "for one: train a run on the images, and evaluate that."
        )
    identified = identify_weights(name, weights)
    model, variables = load_identified(identified)
    classes = getattr(model, "num_classes", None)
    if classes != len(source.class_names):
        raise UserError(
            f"{name} has {classes} classes by its weights, and {source.spec} has "
            f"{len(source.class_names)}."
        )
    prepare = partial(eval_inputs, mean=identified.mean, std=identified.std)
    evaluation = _evaluate(
        model,
        variables,
        make_views(tta, identified.image_size, prepare),
        source,
        step_identity(
            "evaluation",
            name,
            fields=dict(identified.fields),
            input=[list(identified.mean), list(identified.std)],
            tta=tta,
        ),
        batch_size=batch_size,
        image_size=loaded_size(tta, identified.image_size),
        channels=len(identified.mean),
        crop_pct=min(identified.crop_pct, 1.0),
        interpolation=cast(Interpolation, identified.interpolation),
        crop_mode=cast(CropMode, identified.crop_mode),
    )
    return evaluation, source


def predict_images(
    run: Path,
    paths: Sequence[Path],
    *,
    ema: bool = False,
    tta: TTA = "none",
    unreadable: Callable[[DecodeError], None] | None = None,
    advance: Callable[[], None] | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Classifies image files with a run's last checkpoint.

    If that was calibrated, its temperature is used.

    Args:
      run: the run's folder.
      paths: n image files, of any size.
      ema: whether to use the moving average of the weights.
      tta: test-time augmentation; see `train.run.views.make_views`.
      unreadable: called with the error of each file that cannot be read as an image,
        whose probabilities are then NaN; None raises the first.
      advance: called after each file.

    Returns:
      Probabilities, float `[n, K]`, and the names of the K classes. Those of an image
      sum to 1, unless the run has learned several classes per image.

    Raises:
      UserError: if the folder holds no run, or the run has no moving average.
      DecodeError: if a file cannot be read as an image; names the file.
    """
    loaded = load_run(run, ema=ema)
    record, config = loaded.record, loaded.config
    temperature = None if ema else temperature_of(run, loaded.step)
    size, channels = record["input"]["image_size"], record["input"]["channels"]
    resized = partial(
        fit,
        crop_pct=config.input.crop_pct,
        method=config.input.interpolation,
        mode=config.input.crop_mode,
    )
    allow_pixels(config.input.max_pixels)
    class_names = record["class_names"]
    probabilities = np.full((len(paths), len(class_names)), np.nan, np.float32)
    model, variables = fold_batch_norm(loaded.model, loaded.variables)
    facts: dict[str, Any] = {}
    if tta == "none":
        prepare, several = pixel_inputs(record), is_multi_label(record)
        predict = make_predict_step(model, prepare, multi_label=several)
    elif is_multi_label(record):
        raise UserError("--tta is for runs that have learned one class per image.")
    else:
        # Of each view before the mean, as `evaluate` does.
        of_views, temperature = temperature or 1.0, None
        facts["temperature"] = of_views
        predict = mean_log_probs(model, _run_views(loaded, tta), of_views)
    step = jit_step(predict, _identity_of_run("prediction", loaded, tta, **facts))
    size = loaded_size(tta, size)
    # One at a time: one compilation and little memory for any number of files.
    for i, path in enumerate(paths):
        try:
            image = to_channels(resized(read_image(path), size), channels)
        except DecodeError as error:
            if unreadable is None:
                raise
            unreadable(error)
        else:
            log_probs = np.asarray(step(variables, image[None]))
            if temperature is not None:
                log_probs = scaled(log_probs, temperature)
            probabilities[i] = np.exp(log_probs[0])
        if advance:
            advance()
    return probabilities, class_names


def _evaluate(
    model: nn.Module,
    variables: Any,
    views: Sequence[View],
    source: Source,
    identity: dict[str, Any] | None,
    *,
    batch_size: int,
    temperature: float = 1.0,
    **options: Any,
) -> AnyEvaluation:
    """Evaluates a model on all devices.

    Args:
      model: the model.
      variables: the model's variables.
      views: of the images, each normalised.
      source: the images.
      identity: of the step, for the cache of steps.
      batch_size: images per step, rounded up to a multiple of the devices.
      temperature: divides the logits.
      **options: further options of `eval_batches`.
    """
    placement = Placement()
    model, variables = fold_batch_norm(model, variables)
    if len(views) > 1:
        step = partial(_mean_step, mean_log_probs(model, views, temperature))
    else:
        step = make_eval_step(
            model, views[0], multi_label=source.multi_label, temperature=temperature
        )
    step = jit_step(step, identity)
    batches = eval_batches(source, batch_size=placement.round_up(batch_size), **options)
    variables = jax.device_put(variables, placement.replicated)
    return evaluate(step, variables, prefetch_to_device(batches, placement.sharded))


def _mean_step(
    predict: Callable[[Any, jax.Array], jax.Array], variables: Any, batch: Batch
) -> dict[str, jax.Array]:
    return evaluated(predict(variables, batch["image"]), batch)


def _run_views(loaded: LoadedRun, tta: TTA) -> list[View]:
    inputs = loaded.record["input"]
    return make_views(
        tta,
        inputs["image_size"],
        pixel_inputs(loaded.record),
        loaded.config,
        {"mean": inputs["mean"], "std": inputs["std"]},
    )


def _identity_of_run(
    step: str, loaded: LoadedRun, tta: TTA, **facts: Any
) -> dict[str, Any] | None:
    """What a step of inference follows from; see `step_identity`."""
    if tta != "none":
        facts |= {"tta": tta, "augment": config_to_json(loaded.config)["augment"]}
    return run_step_identity(step, loaded.record, **facts)


def _with_old_head(run: Path, loaded: LoadedRun, data: str | None) -> LoadedRun:
    """The run with its old head, and the old task's classes, in place of its own."""
    record = loaded.record
    if "old_task" not in record:
        raise UserError(f"{run} has no old head: it was run without --transfer lwf.")
    if data is None:
        raise UserError("Give the images of the old task: --data SOURCE")
    model = loaded.model.clone(num_classes=record["old_task"]["num_classes"])
    size, channels = record["input"]["image_size"], record["input"]["channels"]
    images = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    head = head_of(find_layers(model, (size, size, channels)), shapes)
    target = {"old_head": jax.tree.map(lambda x: np.empty(x.shape, x.dtype), head)}
    params = restore_item(run, "objective", target, step=loaded.step).tree
    return loaded._replace(
        record={**record, "class_names": record["old_task"]["class_names"]},
        model=model,
        variables=with_old_head(loaded.variables, params["old_head"]),
    )


def check_run_classes(loaded: LoadedRun, source: Source) -> None:
    """Raises `UserError` if the images' labels are others than the run's.

    The classes of an old task have names only if its model came from a run; otherwise
    their number is compared.
    """
    class_names: Any = loaded.record["class_names"]
    classes = getattr(loaded.model, "num_classes", 0)
    if source.multi_label != is_multi_label(loaded.record):
        words = ("several classes", "one") if source.multi_label else ("one", "several")
        raise UserError(
            f"{source.spec} has {words[0]} per image, and the run has learned "
            f"{words[1]}."
        )
    if class_names is not None:
        check_classes(source, class_names)
    elif len(source.class_names) != classes:
        raise UserError(
            f"The old task has {classes} classes, and {source.spec} has "
            f"{len(source.class_names)}."
        )
