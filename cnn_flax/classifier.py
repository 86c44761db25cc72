"""`reset_classifier`: another head, or another pooling, on a model with weights."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

__all__ = ["reset_classifier"]

# Sizes that no layer has by chance: a kernel with the first belongs to a head, and one
# with the second takes the images. Nothing of such a size is ever computed.
_CLASSES, _CHANNELS = 7919, 7907


def reset_classifier(
    model: nn.Module,
    variables: Mapping[str, Any],
    num_classes: int,
    *,
    global_pool: str | None = None,
    key: jax.Array | None = None,
    image_size: int = 224,
) -> tuple[nn.Module, dict[str, Any]]:
    """A model with a new head in the place of its own, timm's `reset_classifier`.

    `load_pretrained(name, num_classes=10)` does the same while it loads. All else is
    the same: the arrays are not copied. Auxiliary heads are new too.

    Args:
      model: one of `create_model`.
      variables: its variables.
      num_classes: outputs of the new head, K; 0 for none: the model then returns the
        pooled features.
      global_pool: `avg`, `max`, `avgmax` or `gem`; None keeps the model's. AlexNet and
        VGG, whose classifiers read the map's positions, have no choice.
      key: to initialise the head; None for key 0.
      image_size: height and width of images that the model takes, in pixels.

    Returns:
      The model, and variables for it.

    Raises:
      TypeError: if the model has no head, or no choice of poolings.
      ValueError: if the variables are not the model's, or there is no such pooling.

    Example:
      >>> model = cnn_flax.create_model("resnet18", width=8)
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
      >>> new, variables = cnn_flax.reset_classifier(model, variables, 10)
      >>> new.apply(variables, jnp.zeros((1, 64, 64, 3))).shape
      (1, 10)
    """
    fields: dict[str, Any] = {} if global_pool is None else {"global_pool": global_pool}
    for field in ("num_classes", *fields):
        if not hasattr(model, field):
            raise TypeError(f"{type(model).__name__} has no field {field!r} to change.")
    new = model.clone(num_classes=num_classes, **fields)
    flat = _flatten(variables)
    marked = _shapes(model.clone(num_classes=_CLASSES), image_size, _CHANNELS)
    head = {path for path, leaf in marked.items() if leaf.shape[-1:] == (_CLASSES,)}
    first = [path for path, leaf in marked.items() if _CHANNELS in leaf.shape]
    channels = next((flat[path].shape[2] for path in first if path in flat), 3)
    wanted = _shapes(new, image_size, channels)
    pooling = wanted.keys() - marked.keys()
    kept = wanted.keys() - head - (pooling - flat.keys())
    for path in sorted(kept):
        if path not in flat or flat[path].shape != wanted[path].shape:
            raise ValueError(
                f"The variables are not the model's: {path} is missing, or has another "
                f"shape than {wanted[path].shape}."
            )
    images = jnp.zeros((1, image_size, image_size, channels))
    fresh = _initial(new, images, wanted.keys() - kept, key)
    variables = {path: flat[path] if path in kept else fresh[path] for path in wanted}
    return new, traverse_util.unflatten_dict(variables, sep="/")


def _shapes(model: nn.Module, image_size: int, channels: int) -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    return _flatten(jax.eval_shape(model.init, jax.random.key(0), images))


def _flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    return traverse_util.flatten_dict(dict(variables), sep="/")  # pyright: ignore


def _initial(
    model: nn.Module, images: jax.Array, paths: set[str], key: jax.Array | None
) -> dict[str, jax.Array]:
    """Initial values of some of a model's variables; no others are computed."""

    @jax.jit
    def init(key: jax.Array) -> dict[str, jax.Array]:
        flat = _flatten(model.init(key, images))
        return {path: flat[path] for path in paths}

    return init(jax.random.key(0) if key is None else key)
