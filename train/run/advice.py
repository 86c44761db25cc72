"""Recommends a kind of transfer for a data set and pretrained weights.

Two quantities decide: the number of images per class, and how near the new task is to
the one that the weights were trained on. Nearness is measured without training, by
classifying held-out images by the nearest class mean: the class whose mean has the
largest cosine with the image, both being centred features of the frozen backbone
(Mensink et al. 2013, "Distance-based image classification", section 3.1, with the
identity as the metric). The same is done with raw pixels at 32 px, with a randomly
initialized backbone, and by always predicting the largest class. The gain of the
weights is the share of the errors of the best of these that they avoid.

The rules follow common practice (Yosinski et al. 2014, "How transferable are
features in deep neural networks?", https://arxiv.org/abs/1411.1792, measures the
trend); the thresholds are ours:

- The weights are *near* if they avoid at least half of these errors, and *far* if they
  avoid less than a sixth.
- Images are *few* if the smallest class has fewer than 50, *many* if it has at least
  500.
- Near or between, and few: feature extraction, as there is too little data to learn
  more parameters.
- Near or between, and not few: fine-tuning, the backbone at a tenth of the learning
  rate.
- Far, and not many: fine-tuning at one learning rate, which loses little.
- Far, and many: training from scratch, as the weights are of no use.
- With an accuracy of the probe of 99 % or more: feature extraction in any case.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from cnn_flax.weights import load_pretrained
from cnn_flax.weights.identify import identify_weights
from train.config import Config, Input, Network, Optimization, Selection, Transfer
from train.data import Source, SourceError, eval_batches, open_source
from train.data.select import decode_options, evaluation_images, training_images
from train.data.source import subset
from train.errors import UserError
from train.jit_once import jit_once
from train.learn.inputs import eval_inputs
from train.run.loop import fit
from train.run.output_cache import output_rows

__all__ = [
    "Advice",
    "advise",
    "judge",
    "nearest_mean",
    "starting_from",
    "try_both",
    "wilson_interval",
]

_PIXELS = 32  # Height and width of the raw images, in pixels.
_FEW, _MANY = 50, 500  # Images in the smallest class.
_NEAR, _FAR = 1 / 2, 1 / 6  # Share of the errors that the weights avoid.
_SOLVED = 0.99  # Accuracy of the probe from which the features suffice.


@dataclasses.dataclass(frozen=True)
class Advice:
    """The measurements, and the recommendation that follows from them.

    Attributes:
      images: number of training images.
      least: number of images in the smallest class.
      classes: number of classes.
      probed: number of images in the class means, and number of held-out images.
      accuracy: on the held-out images, of the largest class (`chance`), and of the
        nearest class mean of `pixels`, of the features of a randomly initialized
        backbone (`random weights`), and of those of the `weights`.
      interval: where the accuracy of the weights lies, with 95 % confidence.
      gain: share of the errors of the best of the others that the weights avoid.
      method: `features`, `fine_tune` or `scratch`.
      reason: the reason, in words.
      flags: the flags that a recipe needs for this method.
    """

    images: int
    least: int
    classes: int
    probed: tuple[int, int]
    accuracy: Mapping[str, float]
    interval: tuple[float, float]
    gain: float
    method: str
    reason: str
    flags: str


def starting_from(
    data: str,
    init: str,
    *,
    model: str | None = None,
    image_size: int = 0,
    seed: int = 0,
) -> Config:
    """The config of a run that starts from the weights, preprocessing as they expect.

    If the data set has no validation images, a fifth of each class is held out, so that
    the test images are not used.

    Args:
      data: a data source.
      init: the value of `--init`; `published` needs a model.
      model: one of `cnn_flax.list_models()`; None detects it from the weights.
      image_size: height and width of the images, in pixels; 0 for that of the weights.
      seed: seed of the split and of the run.

    Raises:
      SourceError: if the images do not exist.
      WeightsError: if the weights do not exist, or are of another model.
      UserError: if published weights were asked for without a model.
    """
    if init == "published" and model is None:
        raise UserError("--init published needs the --model that it is published for.")
    network, preprocessing = _identify(init, model)
    if image_size:
        preprocessing["image_size"] = image_size
    try:
        open_source(data, "val", seed=seed)
        val_share = 0.0
    except SourceError:
        val_share = 0.2
    if open_source(data, "train", seed=seed, val_share=val_share).channels == 1:
        for name in ("mean", "std"):
            preprocessing[name] = (float(np.mean(preprocessing[name])),)
    return Config(
        input=Input(data=data, **preprocessing),
        selection=Selection(eval_split="val", val_share=val_share),
        network=network,
        seed=seed,
    )


def _identify(init: str, model: str | None) -> tuple[Network, dict[str, Any]]:
    """The network of the weights, and the preprocessing that they expect."""
    weights = identify_weights(model, Network(init=init).init_source)
    preprocessing = {
        "image_size": weights.image_size,
        "crop_pct": min(weights.crop_pct, 1.0),
        "interpolation": weights.interpolation,
        "crop_mode": weights.crop_mode,
        "mean": weights.mean,
        "std": weights.std,
    }
    return Network(weights.name, dict(weights.fields), init), preprocessing


def advise(config: Config, *, images: int = 500) -> Advice:
    """Probes the weights on the images, and recommends a kind of transfer.

    Args:
      config: from `starting_from`.
      images: number of images to probe at most, for the means and for the held-out
        images each.

    Raises:
      SourceError: if the images cannot be used.
      WeightsError: if the weights cannot be used.
    """
    train, held_out = training_images(config), evaluation_images(config)
    counts = np.bincount(train.labels, minlength=len(train.class_names))
    parts = [
        subset(source, count=min(images, len(source)), seed=config.seed)
        for source in (train, held_out)
    ]
    accuracy = {"chance": float(np.bincount(parts[1].labels).max() / len(parts[1]))}
    for name, step in _steps(config, train.channels).items():
        size = _PIXELS if name == "pixels" else config.input.image_size
        means_of, probed = (_features(part, step, config, size) for part in parts)
        predicted = nearest_mean(means_of, parts[0].labels, probed)
        accuracy[name] = float(np.mean(predicted == parts[1].labels))
    without = max(accuracy[name] for name in accuracy if name != "weights")
    gain = (accuracy["weights"] - without) / max(1 - without, 1 / len(parts[1]))
    least = int(counts.min())
    method, reason, flags = judge(least, gain, accuracy["weights"])
    return Advice(
        len(train),
        least,
        len(counts),
        (len(parts[0]), len(parts[1])),
        accuracy,
        wilson_interval(accuracy["weights"], len(parts[1])),
        gain,
        method,
        reason,
        flags,
    )


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Where a share lies with 95 % confidence, from so many independent images.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Args:
      share: the observed share, in [0, 1].
      count: number of images, at least 1.
    """
    square = 1.96**2 / count
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def judge(least: int, gain: float, accuracy: float) -> tuple[str, str, str]:
    """The method, the reason and the flags, by the rules of this module.

    Args:
      least: number of images in the smallest class.
      gain: share of the errors that the weights avoid.
      accuracy: accuracy of the probe on the features of the weights.
    """
    amount = "few" if least < _FEW else "many" if least >= _MANY else "some"
    near = "near" if gain >= _NEAR else "far" if gain < _FAR else "between"
    measured = f"{amount} images per class, and the weights are {near}"
    if accuracy >= _SOLVED:
        return "features", "the frozen features separate the classes", _FEATURES
    if near == "far":
        if amount == "many":
            return (
                "scratch",
                f"{measured}: nothing in them is worth keeping",
                "without --init",
            )
        return "fine_tune", f"{measured}: all of them have to change", "--init"
    if amount == "few":
        return "features", f"{measured}: too few to change them", _FEATURES
    return "fine_tune", f"{measured}: enough to change them a little", _FINE_TUNE


_FEATURES = "--init --transfer features"
_FINE_TUNE = "--init --backbone-rate 0.1"


def nearest_mean(
    features: np.ndarray, labels: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Classifies each row by the nearest class mean, by cosine.

    Args:
      features: rows to take means of, `[n, F]`; rows of NaN are left out.
      labels: their classes, int `[n]`.
      others: rows to classify, `[m, F]`.

    Returns:
      Classes, int `[m]`; -1 for rows of NaN.
    """
    readable = ~np.isnan(features[:, 0])
    features, labels = features[readable], labels[readable]
    centre = features.mean(0)

    def directions(rows):
        rows = rows - centre
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    rows, classes = directions(features), np.unique(labels)
    means = np.stack([rows[labels == k].mean(0) for k in classes])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    nearest = classes[(directions(others) @ means.T).argmax(1)]
    return np.where(np.isnan(others[:, 0]), -1, nearest)


def _steps(
    config: Config, channels: int
) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """The features to probe by name, as functions of pixels."""
    network = config.network
    model, variables = load_pretrained(
        network.model,
        network.init_source,
        num_classes=0,
        in_channels=channels,
        **network.model_fields,
    )
    mean, std = (
        x * (channels if len(x) == 1 else 1)
        for x in (config.input.mean, config.input.std)
    )
    size = config.input.image_size
    shape = (1, size, size, channels)
    initialize = jit_once(lambda key: model.init(key, jnp.zeros(shape)))
    random_variables = initialize(jax.random.key(config.seed))

    @jax.jit
    def backbone(variables, images):
        return model.apply(variables, eval_inputs(images, mean=mean, std=std))

    return {
        "pixels": lambda images: images.reshape(len(images), -1) / 255,
        "random weights": partial(backbone, random_variables),
        "weights": partial(backbone, variables),
    }


def _features(
    source: Source,
    step: Callable[[jax.Array], jax.Array],
    config: Config,
    size: int,
) -> np.ndarray:
    """The features of all images, float `[n, F]`; NaN for an unreadable image."""
    batches = eval_batches(
        source,
        batch_size=min(config.input.batch_size, len(source)),
        image_size=size,
        channels=source.channels,
        **decode_options(config),
    )
    parts = list(output_rows(step, batches))
    rows = np.full((len(source), parts[0][1].shape[1]), np.nan)
    for index, features in parts:
        rows[index] = features
    return rows


def try_both(
    config: Config, runs: Path, *, steps: int = 200, console: Console | None = None
) -> dict[str, dict[str, Any]]:
    """Trains for a few steps with feature extraction and with fine-tuning.

    The optimizer is AdamW with a learning rate of 0.003; fine-tuning uses a tenth of it
    for the backbone.

    Args:
      config: from `starting_from`.
      runs: folder of the two runs; a run there that has ended is not repeated.
      steps: number of steps of each run.
      console: prints progress; None is standard output.

    Returns:
      The contents of `result.json` of the runs `features` and `fine_tune`.
    """
    batch_size = min(config.input.batch_size, len(training_images(config)))
    config = dataclasses.replace(
        config,
        input=dataclasses.replace(config.input, batch_size=batch_size),
        optimization=Optimization(optimizer="adamw", learning_rate=3e-3),
        epochs=1,
        epoch_steps=steps,
    )
    transfers = {
        "features": Transfer(transfer="features"),
        "fine_tune": Transfer(backbone_rate=0.1),
    }
    return {
        name: fit(
            dataclasses.replace(config, transfer=transfer), runs / name, console=console
        )
        for name, transfer in transfers.items()
    }
