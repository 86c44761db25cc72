"""Models with weights: from a file, a folder, a run, the Hub, or published ones."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from cnn_flax.registry import create_model, registration
from cnn_flax.weights.convert import from_torch
from cnn_flax.weights.errors import WeightsError
from cnn_flax.weights.identify import identify_weights
from cnn_flax.weights.native import from_native, is_native
from cnn_flax.weights.read import read_checkpoint
from cnn_flax.weights.runs import SavedModel, read_run
from cnn_flax.weights.variables import Sizes, flatten, sizes, variable_shapes

__all__ = ["load_pretrained"]

_log = logging.getLogger("cnn_flax")


def load_pretrained(
    name: str,
    source: str | os.PathLike[str] | None = None,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    **fields: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """Returns a model and weights for it.

    Args:
      name: one of `cnn_flax.list_models()`.
      source: a file that `read_checkpoint` takes, with torch's names or ours (as
        written by `cnn-flax convert`); a folder that holds `model.safetensors` or
        `pytorch_model.bin`; the folder of a run of `python -m train`, whose last
        checkpoint is taken; an id `owner/name` on the Hugging Face Hub; or None for the
        first of `model_info(name).weights`, which is cached in `~/.cache/cnn_flax`, or
        `$CNN_FLAX_CACHE`.
      num_classes: outputs of the head; None follows the source. If the source has
        another number, a new head is initialised from key 0, and the logger
        "cnn_flax" warns; 0 leaves the head out.
      in_channels: channels of the images; None follows the source. 1 sums the first
        kernel over its channels: a grey image then gives the same logits as three equal
        channels.
      **fields: further fields of the model, such as `dtype` or `drop_path_rate`; the
        defaults are a run's own, and those that published weights need.

    Returns:
      The model, and {"params": ..., "batch_stats": ...} for it: arrays on the default
      device, of the model's own dtypes (float32; float64 where its `dtype` is).

    Raises:
      UnknownModelError: if there is no such model.
      WeightsError: if the source is missing, cannot be read, or does not fit.
    """
    # Only the source's own name counts here, not what the file holds.
    weights = identify_weights(name, source, by_content=False)
    if weights.path.is_dir():
        saved = read_run(name, weights.path)
    else:
        fields = {**weights.fields, **fields}
        arrays = read_checkpoint(weights.path)
        read = from_native if is_native(arrays) else from_torch
        variables = read(name, arrays, **fields)
        saved = SavedModel(
            variables,
            fields,
            sizes(name, flatten(variables), **fields),
            registration(name).image_size,
        )
    fields = {**saved.fields, **fields}
    found = saved.sizes
    wanted = found._replace(
        num_classes=found.num_classes if num_classes is None else num_classes,
        in_channels=found.in_channels if in_channels is None else in_channels,
    )
    if wanted.in_channels not in (1, found.in_channels):
        raise WeightsError(
            f"These weights of {name} take images of {found.in_channels} channels; "
            f"in_channels may be {found.in_channels}, or 1 for grey images, got "
            f"{wanted.in_channels}."
        )

    def shapes(of: Sizes) -> dict[str, Any]:
        all_fields = {**fields, **of.fields}
        return variable_shapes(name, all_fields, of.in_channels, saved.image_size)

    flat = flatten(saved.variables)
    _check_same(name, shapes(found), flat)
    adapted, fresh = _adapt(flat, shapes(wanted))
    model = create_model(name, **{**fields, **wanted.fields})
    if fresh:
        _log.warning(
            "%s: the head of %d classes is replaced by a new one of %d.",
            name,
            found.num_classes,
            wanted.num_classes,
        )
        size = saved.image_size
        images = jnp.zeros((1, size, size, wanted.in_channels))
        adapted.update(_initial(model, images, fresh))
    return model, traverse_util.unflatten_dict(adapted, sep="/")


def _check_same(name: str, shapes: Mapping[str, Any], flat: Mapping[str, Any]) -> None:
    """Checks that the fields given for a run do not change its parameters."""
    for path in {**shapes, **flat}:
        wanted = shapes[path].shape if path in shapes else "nothing"
        found = np.shape(flat[path]) if path in flat else "nothing"
        if wanted != found:
            raise WeightsError(
                f"The run has other fields of {name} than those given: {path} has the "
                f"shape {found}, and {wanted} with the given ones."
            )


def _adapt(
    flat: Mapping[str, Any], shapes: Mapping[str, Any]
) -> tuple[dict[str, jax.Array], list[str]]:
    """The variables in the wanted shapes, and the paths of those to initialise."""
    adapted, fresh = {}, []
    for path, leaf in shapes.items():
        x = flat.get(path)
        if x is not None and x.shape != leaf.shape and x.ndim == 4:
            # Only the input channels of the first kernel can change, to one.
            x = x.astype(leaf.dtype).sum(axis=2, keepdims=True)
        if x is None or x.shape != leaf.shape:
            fresh.append(path)
        else:
            adapted[path] = jnp.asarray(x, leaf.dtype)
    return adapted, fresh


def _initial(
    model: nn.Module, images: jax.Array, paths: Sequence[str]
) -> dict[str, jax.Array]:
    """Initial values of some of a model's variables; no others are computed."""

    @jax.jit
    def init():
        flat = flatten(model.init(jax.random.key(0), images))
        return {path: flat[path] for path in paths}

    return init()
