"""Which kind of transfer suits a set of images and pretrained weights.

Two quantities decide: the number of images per class, and how near the new task is to
the one that the weights were trained on. Nearness is measured without training: a
held-out image gets the class whose mean is nearest by cosine (Mensink et al. 2013,
"Distance-based image classification", section 3.1, nearest class mean, with the
identity as the metric), between centred features of the frozen backbone. The same is
done with raw pixels at 32 px, and with a randomly initialized backbone. The gain of the
weights is the share of the better one's errors that they avoid.

The rules follow the field's rule of thumb (Yosinski et al. 2014, "How transferable are
features in deep neural networks?", https://arxiv.org/abs/1411.1792, measures its
tendency); the thresholds are ours:

- The weights are *near* if they avoid half of these errors or more, and *far* if they
  avoid less than a sixth.
- Images are *few* below 50 per class (in the smallest class), *many* from 500 on.
- Near or between, and few: feature extraction. More parameters could not be learned.
- Near or between, and not few: fine-tuning, the backbone at a tenth of the rate.
- Far, and not many: fine-tuning at one rate; little is lost by it.
- Far, and many: training from scratch, as the weights are of no use.
- If the probe's accuracy is 99 % or more: feature extraction, whatever the number.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from cnn_flax.weights import load_pretrained
from cnn_flax.weights.identify import identify_weights
from train.config import Config, Input, Network, Optimization, Selection, Transfer
from train.data import Source, SourceError, eval_batches, open_source
from train.data.decode import Interpolation
from train.data.select import evaluation_images, training_images
from train.data.source import subset
from train.errors import UserError
from train.learn.inputs import eval_inputs
from train.run.loop import fit
from train.run.output_cache import output_rows

__all__ = ["Advice", "advise", "judge", "nearest_mean", "starting_from", "try_both"]

_PIXELS = 32  # Height and width of the raw images, in pixels.
_FEW, _MANY = 50, 500  # Images of the smallest class.
_NEAR, _FAR = 1 / 2, 1 / 6  # Share of the errors that the weights avoid.
_SOLVED = 0.99  # Accuracy of the probe.


@dataclasses.dataclass(frozen=True)
class Advice:
    """What was measured of images and weights, and the recommendation.

    Attributes:
      images: number of training images.
      least: number of those in the smallest class.
      classes: number of classes.
      probed: numbers of images that the means are of, and that were held out.
      accuracy: of nearest class means on the held-out images, by what the means are of:
        `chance` (the largest class), `pixels`, `random weights`, `weights`.
      gain: share of the errors of the best of the others that the weights avoid.
      method: `features`, `fine_tune` or `scratch`.
      reason: why, in words.
      flags: of a recipe.
    """

    images: int
    least: int
    classes: int
    probed: tuple[int, int]
    accuracy: Mapping[str, float]
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
    """The config of a run on the images from the weights, preprocessed as they expect.

    If the set has no validation images, a fifth of each class is held out, so that the
    test images are not used.

    Args:
      data: a data source.
      init: as the flag; `published` needs a model.
      model: one of `cnn_flax.list_models()`; None detects it from the weights.
      image_size: height and width of the images; 0 is the weights' own.
      seed: of the split, and of the run.

    Raises:
      SourceError: if there are no such images.
      WeightsError: if there are no such weights, or they are of another model.
      UserError: if the model is not known.
    """
    if init == "published" and model is None:
        raise UserError("--init published needs the --model that it is published for.")
    network, known = _identify(init, model)
    try:
        open_source(data, "val", seed=seed)
        val_share = 0.0
    except SourceError:
        val_share = 0.2
    if open_source(data, "train", seed=seed, val_share=val_share).channels == 1:
        grey = {name: (float(np.mean(known[name])),) for name in ("mean", "std")}
        known = {**known, **grey}
    return Config(
        input=Input(**{**known, "data": data, **_given(image_size)}),
        selection=Selection(eval_split="val", val_share=val_share),
        network=network,
        seed=seed,
    )


def _given(image_size: int) -> dict[str, int]:
    return {"image_size": image_size} if image_size else {}


def _identify(init: str, model: str | None) -> tuple[Network, dict[str, Any]]:
    """The network that weights are for, and the preprocessing that they expect."""
    weights = identify_weights(model, None if init == "published" else init)
    preprocessing = {
        "image_size": weights.image_size,
        "crop_pct": min(weights.crop_pct, 1.0),
        "interpolation": weights.interpolation,
        "mean": weights.mean,
        "std": weights.std,
    }
    return Network(weights.name, dict(weights.fields), init), preprocessing


def advise(config: Config, *, images: int = 500) -> Advice:
    """Probes the weights, and recommends.

    Args:
      config: from `starting_from`.
      images: largest number to probe, for the means and held out.

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
        gain,
        method,
        reason,
        flags,
    )


def judge(least: int, gain: float, accuracy: float) -> tuple[str, str, str]:
    """The method, the reason and the flags, by the rules of this module.

    Args:
      least: images of the smallest class.
      gain: share of the errors that the weights avoid.
      accuracy: of the probe on the weights' features.
    """
    amount = "few" if least < _FEW else "many" if least >= _MANY else "some"
    near = "near" if gain >= _NEAR else "far" if gain < _FAR else "between"
    measured = f"{amount} images per class, and the weights are {near}"
    if accuracy >= _SOLVED:
        return "features", "the frozen features tell the classes apart", _FEATURES
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
    """The class whose mean is nearest to each row, by cosine.

    Args:
      features: `[n, F]` to take means of; rows of NaN are left out.
      labels: their classes, int `[n]`.
      others: `[m, F]` to classify.

    Returns:
      Classes, int `[m]`; -1 for rows of NaN.
    """
    known = ~np.isnan(features[:, 0])
    features, labels = features[known], labels[known]
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
    """The features that means are taken of, as functions of pixels."""
    network = config.network
    model, variables = load_pretrained(
        network.model,
        None if network.init == "published" else network.init,
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
    drawn = jax.jit(lambda key: model.init(key, jnp.zeros(shape)))(
        jax.random.key(config.seed)
    )

    @jax.jit
    def backbone(variables, images):
        return model.apply(variables, eval_inputs(images, mean=mean, std=std))

    return {
        "pixels": lambda images: images.reshape(len(images), -1) / 255,
        "random weights": partial(backbone, drawn),
        "weights": partial(backbone, variables),
    }


def _features(
    source: Source,
    step: Callable[[jax.Array], jax.Array],
    config: Config,
    size: int,
) -> np.ndarray:
    """Features of all images, float `[n, F]`; NaN for one that cannot be read."""
    batches = eval_batches(
        source,
        batch_size=min(config.input.batch_size, len(source)),
        image_size=size,
        channels=source.channels,
        crop_pct=config.input.crop_pct,
        interpolation=cast(Interpolation, config.input.interpolation),
    )
    parts = list(output_rows(step, batches))
    rows = np.full((len(source), parts[0][1].shape[1]), np.nan)
    for index, features in parts:
        rows[index] = features
    return rows


def try_both(
    config: Config, runs: Path, *, steps: int = 200, console: Console | None = None
) -> dict[str, dict[str, Any]]:
    """Trains both ways for the same number of steps, in a folder each.

    AdamW at a rate of 0.003; in fine-tuning the backbone has a tenth of it.

    Args:
      config: from `starting_from`.
      runs: parent of the folders; a run that has ended there is not run again.
      steps: of each run.
      console: where progress is printed.

    Returns:
      The contents of `result.json` of `features` and `fine_tune`.
    """
    batch_size = min(config.input.batch_size, len(training_images(config)))
    config = dataclasses.replace(
        config,
        input=dataclasses.replace(config.input, batch_size=batch_size),
        optimization=Optimization(optimizer="adamw", learning_rate=3e-3),
        epochs=1,
        epoch_steps=steps,
    )
    ways = {
        "features": Transfer(transfer="features"),
        "fine_tune": Transfer(backbone_rate=0.1),
    }
    return {
        name: fit(
            dataclasses.replace(config, transfer=transfer), runs / name, console=console
        )
        for name, transfer in ways.items()
    }
