"""What is exported: from images to logits, with as much of the preprocessing as asked.

One function serves every format.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnn_flax.analysis.jaxpr import check_module
from cnn_flax.export.errors import ExportError
from cnn_flax.export.resizing import resized_to_centre
from cnn_flax.info import ModelInfo
from cnn_flax.published import PublishedWeights
from cnn_flax.weights.identify import IdentifiedWeights

__all__ = ["Images", "Inside", "Preparation", "inference_function"]

Inside = Literal["nothing", "normalization", "resizing"]
Preparation = PublishedWeights | IdentifiedWeights | ModelInfo


@dataclasses.dataclass(frozen=True)
class Images:
    """The images that an exported program takes.

    Attributes:
      batch_size: images per call; None for any number.
      size: (height, width), in pixels; None for any size.
      channels: C.
      dtype: "uint8" for levels, "float32" for prepared images.
    """

    batch_size: int | None
    size: tuple[int, int] | None
    channels: int
    dtype: str

    def shape_dtype(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype, with symbolic dimensions `batch`, `height`, `width`."""
        batch = "batch" if self.batch_size is None else self.batch_size
        height, width = self.size or ("height", "width")
        shape = jax.export.symbolic_shape(
            f"{batch}, {height}, {width}, {self.channels}"
        )
        return jax.ShapeDtypeStruct(shape, jnp.dtype(self.dtype))


def inference_function(
    model: nn.Module,
    variables: Mapping[str, Any],
    preparation: Preparation,
    *,
    inside: Inside = "nothing",
    batch_size: int | None = None,
    image_size: int | None = None,
    channels: int = 3,
) -> tuple[Callable[[jax.Array], jax.Array], Images]:
    """Returns the function from images to logits, and the images that it takes.

    Args:
      model: one of the registry.
      variables: its variables.
      preparation: what the weights require of images: `model_info(name)`, one of its
        `weights`, or what `identify_weights` returns.
      inside: what the function does to images before the net: "nothing" takes those
        that `cnn_flax.preprocess` returns, float32; "normalization" takes levels, uint8
        images of the net's size; "resizing" takes uint8 images of any size.
      batch_size: images per call; None for any number.
      image_size: height and width of the net's images, in pixels; by default the
        preparation's.
      channels: channels of the images, C.

    Returns:
      A function `[N, H, W, C] -> [N, num_classes]`, float32 logits, with the variables
      as constants, and the images.

    Raises:
      TypeError: if `model` is not a module.
      ExportError: if an option has another value, or does not fit the model.
    """
    check_module(model)
    if inside not in get_args(Inside):
        allowed = ", ".join(get_args(Inside))
        raise ExportError(f"inside is one of {allowed}; got {inside!r}.")
    size = image_size or preparation.image_size
    sizes = {"batch_size": batch_size, "image_size": size, "channels": channels}
    for name, value in sizes.items():
        if value is not None and not (isinstance(value, int) and value > 0):
            raise ExportError(f"{name} is a positive number, got {value!r}.")
    images = Images(
        batch_size=batch_size,
        size=None if inside == "resizing" else (size, size),
        channels=channels,
        dtype="float32" if inside == "nothing" else "uint8",
    )
    mean, std = (_per_channel(x, channels) for x in (preparation.mean, preparation.std))
    resize = _resizing(preparation, size) if inside == "resizing" else None

    def infer(images: jax.Array) -> jax.Array:
        if resize is not None:
            images = resize(images)
        if inside != "nothing":
            images = (images.astype(jnp.float32) / np.float32(255) - mean) / std
        logits: Any = model.apply(variables, images)
        return logits.astype(jnp.float32)

    net = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    try:
        jax.eval_shape(lambda x: model.apply(variables, x), net)
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"The model does not take images of {size} x {size} px: {error}"
        ) from error
    return infer, images


def _per_channel(values: Sequence[float], channels: int) -> np.ndarray:
    if len(values) not in (1, channels):
        raise ExportError(
            f"The normalization has {len(values)} values, and the images have "
            f"{channels} channels."
        )
    return np.broadcast_to(np.asarray(values, np.float32), channels)[None, None, None]


def _resizing(preparation: Preparation, size: int) -> Callable[[jax.Array], jax.Array]:
    if isinstance(preparation, ModelInfo) and preparation.weights:
        preparation = preparation.weights[0]
    if size != preparation.image_size:
        raise ExportError(
            f"The weights resize images to {preparation.image_size} px; another "
            'image_size needs inside="nothing" or "normalization".'
        )
    if isinstance(preparation, ModelInfo):
        short, squash = math.floor(size / preparation.crop_pct), False
    else:
        short, squash = preparation.resize, preparation.crop_mode == "squash"
    return partial(
        resized_to_centre,
        short=short,
        size=size,
        interpolation=preparation.interpolation,
        squash=squash,
    )
