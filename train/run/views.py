"""Test-time augmentation: the mean prediction for several views of each image."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from train.config import Config
from train.errors import UserError
from train.learn.inputs import train_inputs

__all__ = ["TTA", "View", "loaded_size", "make_views", "mean_log_probs"]

TTA = Literal["none", "flip", "crops5", "policy"]
# From pixels `uint8 [N, H, W, C]` to normalised images.
View = Callable[[jax.Array], jax.Array]

_RANDOM = 8  # Views of `policy`.


def loaded_size(tta: TTA, image_size: int) -> int:
    """Height and width at which images are loaded: for `crops5` an eighth more.

    Krizhevsky et al. 2012, section 4.1, take 224 of 256 pixels.
    """
    return -(-image_size * 8 // 7) if tta == "crops5" else image_size


def make_views(
    tta: TTA,
    image_size: int,
    prepare: View,
    config: Config | None = None,
    inputs: dict[str, Any] | None = None,
) -> list[View]:
    """The views of an image.

    Args:
      tta: `none`, the image itself; `flip`, also its mirror image; `crops5`, the four
        corners and the centre of a larger image (Krizhevsky et al. 2012, section 4.1,
        without the mirror images); or `policy`, eight draws of the run's augmentation,
        without mixing, which are the same in every call.
      image_size: height and width of the model's images.
      prepare: normalises a batch of pixels.
      config: the run's config, for `policy`.
      inputs: `mean` and `std` of the run's images, for `policy`.

    Raises:
      UserError: if there is no such way, or it needs a run.
    """
    if tta not in get_args(TTA):
        raise UserError(f"--tta is one of {', '.join(get_args(TTA))}; got {tta!r}.")
    if tta == "flip":
        return [prepare, lambda pixels: prepare(pixels[:, :, ::-1])]
    if tta == "crops5":
        return [partial(_crop, i, image_size, prepare) for i in range(5)]
    if tta == "policy":
        if config is None or inputs is None:
            raise UserError("--tta policy draws a run's augmentation: it needs a run.")
        augment = dataclasses.replace(config.augment, mixup=0.0, cutmix=0.0)
        if augment.crop_at_decode:
            augment = dataclasses.replace(augment, crop_at_decode=False)
        draw = train_inputs(augment, size=image_size, **inputs)
        return [partial(_drawn, i, draw) for i in range(_RANDOM)]
    return [prepare]


def mean_log_probs(
    model: nn.Module, views: Sequence[View], temperature: float = 1.0
) -> Callable[[Any, jax.Array], jax.Array]:
    """A function of variables and pixels to the log of the views' mean probabilities.

    Args:
      model: a module that returns logits `[N, K]`.
      views: of the images.
      temperature: divides the logits of each view.
    """

    def predict(variables: Any, pixels: jax.Array) -> jax.Array:
        log_probs = [
            jax.nn.log_softmax(
                jnp.asarray(model.apply(variables, view(pixels))) / temperature
            )
            for view in views
        ]
        return jax.nn.logsumexp(jnp.stack(log_probs), axis=0) - jnp.log(len(views))

    return predict


def _crop(index: int, size: int, prepare: View, pixels: jax.Array) -> jax.Array:
    """One of the five windows of a size: top left, top right, .., the centre."""
    room = pixels.shape[1] - size
    y, x = ((0, 0), (0, room), (room, 0), (room, room), (room // 2, room // 2))[index]
    return prepare(pixels[:, y : y + size, x : x + size])


def _drawn(index: int, draw: Callable[..., Any], pixels: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(0), index)
    keys = jax.random.split(key, len(pixels))
    batch = {"image": pixels, "label": jnp.zeros(len(pixels), jnp.int32)}
    return draw(keys, batch, key)["image"]
