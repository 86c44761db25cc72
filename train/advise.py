"""`python -m train advise`: which kind of transfer suits the images and the weights.

Two things decide: how many images a class there are, and how near the task that the
weights were learned on is. The latter is measured without training: a held-out image
gets the class whose mean is nearest to it by the cosine (Mensink et al. 2013,
"Distance-based image classification", section 3.1, nearest class mean, with the
identity for a metric), between features of the frozen backbone, centred on their mean.
The same is done with the bare pixels, of 32 px, and with the backbone before it had
learned anything. What the weights are worth is the share of the better one's errors
that they avoid.

The rules, from the table that is common knowledge in the field (Yosinski et al. 2014,
"How transferable are features in deep neural networks?", https://arxiv.org/abs/1411.1792,
measures its tendency); the borders are ours, and no law:

- The weights are *near* where they avoid half of these errors or more, *far* where less
  than a sixth.
- There are *few* images under 50 a class (of the smallest class), *many* from 500 on.
- Near or between, and few: feature extraction. More weights could not be learned.
- Near or between, and not few: fine-tuning, the backbone at a tenth of the rate.
- Far, and not many: fine-tuning, all at one rate; little is lost by it.
- Far, and many: from scratch, the weights being of no use.
- Where the probe is right on 99 % or more, feature extraction whatever the number.
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

import cnn_flax
from cnn_flax.weights import load_pretrained, read_checkpoint
from cnn_flax.weights.identify import model_of, origin_of
from cnn_flax.weights.sources import find
from train.config import Config, Input, Network, Optimization, Selection, Transfer
from train.data import Source, SourceError, eval_batches, open_source
from train.data.base import subset
from train.data.decode import Interpolation
from train.errors import UserError
from train.folder import read_record
from train.images import evaluation_images, training_images
from train.inputs import eval_inputs
from train.kept import rows_of
from train.loop import fit

__all__ = ["Advice", "advise", "judge", "nearest_mean", "starting_from", "try_both"]

_PIXELS = 32  # Height and width of the bare images.
_FEW, _MANY = 50, 500  # Images of the smallest class.
_NEAR, _FAR = 1 / 2, 1 / 6  # Share of the errors that the weights avoid.
_SOLVED = 0.99  # Accuracy of the probe.


@dataclasses.dataclass(frozen=True)
class Advice:
    """What the images and the weights say.

    Attributes:
      images: number of the training images.
      least: number of those of the smallest class.
      classes: number of classes.
      probed: numbers of images that the means are of, and that were held out.
      accuracy: share of the held-out images that nearest means get right, by what they
        are means of: `chance` (the largest class), `pixels`, `random weights`,
        `weights`.
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
    """A run on the images from the weights, which are given what they know.

    Where the set has no images for validation, a fifth of each class becomes that, so
    that those for the test are not looked at.

    Args:
      data: a source.
      init: as the flag; `published` needs a model.
      model: one of `cnn_flax.list_models()`; None asks the weights.
      image_size: height and width of the images; 0 is the weights' own.
      seed: of the split, and of all else.

    Raises:
      SourceError: if there are no such images.
      WeightsError: if there are no such weights, or they are of another model.
      UserError: if the model is not known.
    """
    if init == "published" and model is None:
        raise UserError("--init published needs the --model that it is published for.")
    network, known = _known(init, model)
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


def _known(init: str, model: str | None) -> tuple[Network, dict[str, Any]]:
    """The network that weights are for, and how they know images."""
    path = None if init == "published" else find(init)
    if path is not None and path.is_dir():
        record = read_record(path)
        if record is None:
            raise UserError(f"{init} holds no run.")
        config, own = record["config"]["input"], record["input"]
        names = ("crop_pct", "interpolation")
        known = {name: config[name] for name in names}
        known |= {"image_size": own["image_size"]}
        known |= {name: tuple(own[name]) for name in ("mean", "std")}
        of = record["config"]["network"]
        name = model or of["model"]
        return Network(name, of["model_fields"], init), known
    entry = None
    if path is not None:
        arrays = read_checkpoint(path)
        model = model or model_of(init, path, arrays)
        origin = origin_of(model, init, path, arrays)
        entry = origin.entry if origin else None
    assert model is not None
    info = cnn_flax.model_info(model)
    entry = entry or (info.weights[0] if info.weights else None)
    of = entry or info
    known = {
        "image_size": of.image_size,
        "crop_pct": min(of.crop_pct, 1.0),
        "interpolation": of.interpolation,
        "mean": tuple(of.mean),
        "std": tuple(of.std),
    }
    return Network(model, dict(entry.fields) if entry else {}, init), known


def advise(config: Config, *, images: int = 500) -> Advice:
    """Probes the weights, and judges.

    Args:
      config: of `starting_from`.
      images: how many to probe at the most, for the means and held out.

    Raises:
      SourceError: if the images cannot be used.
      WeightsError: if the weights cannot.
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
        means_of, judged = (_features(part, step, config, size) for part in parts)
        predicted = nearest_mean(means_of, parts[0].labels, judged)
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
    told = f"{amount} images a class, and the weights are {near}"
    if accuracy >= _SOLVED:
        return "features", "the frozen features tell the classes apart", _FEATURES
    if near == "far":
        if amount == "many":
            return "scratch", f"{told}: they give nothing to keep", "without --init"
        return "fine_tune", f"{told}: all of them have to change", "--init"
    if amount == "few":
        return "features", f"{told}: too few to change them", _FEATURES
    return "fine_tune", f"{told}: enough to change them a little", _FINE_TUNE


_FEATURES = "--init --transfer features"
_FINE_TUNE = "--init --backbone-rate 0.1"


def nearest_mean(
    features: np.ndarray, labels: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """The class whose mean is nearest to each row, by the cosine.

    Args:
      features: `[n, F]`; rows of NaN are left out.
      labels: their classes, int `[n]`.
      others: `[m, F]`.

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
    """What the means are of, as functions of pixels."""
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
    """Features of all images, float `[n, F]`; NaN where one cannot be read."""
    batches = eval_batches(
        source,
        batch_size=min(config.input.batch_size, len(source)),
        image_size=size,
        channels=source.channels,
        crop_pct=config.input.crop_pct,
        interpolation=cast(Interpolation, config.input.interpolation),
    )
    parts = list(rows_of(step, batches))
    rows = np.full((len(source), parts[0][1].shape[1]), np.nan)
    for index, features in parts:
        rows[index] = features
    return rows


def try_both(
    config: Config, runs: Path, *, steps: int = 200, console: Console | None = None
) -> dict[str, dict[str, Any]]:
    """Trains both ways for as many steps, in folders of their own.

    AdamW at a rate of 0.003; in fine-tuning the backbone has a tenth of it.

    Args:
      config: of `starting_from`.
      runs: where the folders are; a run that has ended there is not run again.
      steps: of each.
      console: where progress goes.

    Returns:
      What the `result.json` of `features` and `fine_tune` hold.
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
