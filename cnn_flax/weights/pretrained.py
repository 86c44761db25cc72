"""Models with weights: from a file, a folder, a run, the Hub, or published ones."""

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from cnn_flax.backbone import backbone_of
from cnn_flax.registry import create_model, registration
from cnn_flax.weights.convert import read_state_dict
from cnn_flax.weights.errors import WeightsError, name_of
from cnn_flax.weights.identify import IdentifiedWeights, identify_weights
from cnn_flax.weights.native import from_native, is_native
from cnn_flax.weights.read import read_checkpoint
from cnn_flax.weights.runs import SavedModel, read_run
from cnn_flax.weights.variables import Sizes, flatten, sizes, variable_shapes

__all__ = ["load_identified", "load_pretrained"]

_log = logging.getLogger("cnn_flax")


def load_pretrained(
    name: str,
    source: str | os.PathLike[str] | None = None,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    features_only: bool = False,
    out_stages: Sequence[str | int] | None = None,
    **fields: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """Returns a model and weights for it.

    Fields that published weights need are the same by their id on the Hub and from a
    local file, which is recognized by its metadata, name, digest or content. The logger
    "cnn_flax" warns if a file may be several published weights that need different
    fields, or as well of another model, as timm's `efficientnet_b0` and
    `tf_efficientnet_b0`, whose parameters are named alike.

    Args:
      name: one of `cnn_flax.list_models()`.
      source: a file that `read_checkpoint` takes, with torch's names or ours (as
        written by `cnn-flax convert`); a folder that holds `model.safetensors` or
        `pytorch_model.bin`, whole or in shards with their index; the folder of a run
        of `python -m train`, whose last checkpoint is taken; an id `owner/name` on the
        Hugging Face Hub, or `hf-hub:owner/name` with `@revision` or without, of timm's
        or `cnn-flax push`'s; or None for the first of `model_info(name).weights`, which
        is cached in `~/.cache/cnn_flax`, or `$CNN_FLAX_CACHE`.
      num_classes: outputs of the head; None follows the source. If the source has
        another number, or a head that the model cannot have, a new head is initialised
        from key 0, and the logger "cnn_flax" warns; 0 leaves the head out.
      in_channels: channels of the images, C; None follows the source. As in timm, 1
        sums the first kernel over its I channels: a grey image then gives the same
        logits as I equal channels. Another number repeats the channels in their order
        and scales them by I / C.
      features_only: whether to return a backbone, as `create_model` does.
      out_stages: names or numbers of a backbone's maps.
      **fields: further fields of the model, such as `dtype` or `drop_path_rate`; the
        defaults are a run's own, and those that published weights need.

    Returns:
      The model, and {"params": ..., "batch_stats": ...} for it: arrays on the default
      device, of the model's own dtypes (float32; float64 where its `dtype` is).

    Raises:
      UnknownModelError: if there is no such model.
      WeightsError: if the source is missing, cannot be read, or does not fit.
    """
    shape = {"features_only": features_only, "out_stages": out_stages}
    if features_only:  # Said of wrong arguments before anything is read.
        create_model(name, num_classes=num_classes or 0, **shape, **fields)
        num_classes = 0
    weights = identify_weights(name, source)
    model, variables = load_identified(
        weights, num_classes=num_classes, in_channels=in_channels, **fields
    )
    if features_only:
        model = backbone_of(model, out_stages)
        variables = _used(model, variables, registration(name).image_size)
    return model, variables


def _used(
    model: nn.Module, variables: Mapping[str, Any], image_size: int
) -> dict[str, Any]:
    """Those of the variables that a model has."""
    flat = flatten(variables)
    channels = next(x.shape[2] for x in flat.values() if x.ndim == 4)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    paths = flatten(jax.eval_shape(model.init, jax.random.key(0), images))
    return traverse_util.unflatten_dict({p: flat[p] for p in paths}, sep="/")


def load_identified(
    weights: IdentifiedWeights,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    **fields: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """`load_pretrained` for weights that are identified.

    Raises:
      WeightsError: as `load_pretrained`.
    """
    _check_count("num_classes", num_classes, 0)
    _check_count("in_channels", in_channels, 1)
    _warn_of_others(weights, fields)
    name = weights.name
    # Another pooling than the weights' own has at most parameters that are new.
    pooling = {key: fields.pop(key) for key in ("global_pool",) if key in fields}
    if weights.path.is_dir():
        saved = read_run(name, weights.path)
    else:
        fields = {**weights.fields, **fields}
        arrays = read_checkpoint(weights.path)
        if any("/global_pool/" in path for path in arrays):
            fields |= pooling
        if is_native(arrays):
            variables = from_native(name, arrays, **fields)
        else:
            any_head = num_classes is not None
            variables = read_state_dict(name, arrays, fields, any_head=any_head)
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

    @functools.cache
    def shapes(of: Sizes, **pooling: str) -> dict[str, Any]:
        all_fields = {**fields, **pooling, **of.fields}
        return variable_shapes(name, all_fields, of.in_channels, saved.image_size)

    flat = flatten(saved.variables)
    _check_same(name, shapes(found), flat)
    adapted, fresh = _adapt(flat, shapes(wanted, **pooling))
    model = create_model(name, **{**fields, **pooling, **wanted.fields})
    if set(fresh) & shapes(wanted).keys():
        if wanted.num_classes == found.num_classes:
            raise WeightsError(
                f"These weights of {name} take images of {found.in_channels} channels; "
                f"{fresh[0]} cannot be changed to {wanted.in_channels}."
            )
        old = f"the head of {found.num_classes} classes is replaced by"
        if not found.num_classes:
            old = "the weights have no head that fits:"
        _log.warning("%s: %s a new one of %d.", name, old, wanted.num_classes)
    if fresh:
        size = saved.image_size
        images = jnp.zeros((1, size, size, wanted.in_channels))
        adapted.update(_initial(model, images, fresh))
    return model, traverse_util.unflatten_dict(adapted, sep="/")


def _check_count(name: str, value: Any, least: int) -> None:
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if value is not None and not (is_integer and value >= least):
        raise WeightsError(f"{name} is an integer of at least {least}, got {value!r}.")


def _warn_of_others(weights: IdentifiedWeights, given: Mapping[str, Any]) -> None:
    """Warns if the weights may be others that need another model or other fields."""
    if weights.twin is not None:
        _log.warning(
            "%s may be of %s or of %s, which compute different logits from the same "
            "parameters%s. It is loaded as %s.",
            *(weights.file, weights.name, weights.twin.name),
            f", and is named {weights.twin.name}" if weights.twin.named else "",
            weights.name,
        )
    for other in weights.candidates:
        if {**other.fields, **given} != {**weights.fields, **given}:
            first: Any = weights.entry
            _log.warning(
                "%s may be %s, which needs %s, or %s, which needs %s. The first is "
                "assumed; fields that are given count.",
                *(weights.file, first.source, _words(first.fields)),
                *(other.source, _words(other.fields)),
            )
            break


def _words(fields: Mapping[str, Any]) -> str:
    words = ", ".join(f"{name}={value}" for name, value in fields.items())
    return words or "the model's defaults"


def _check_same(name: str, shapes: Mapping[str, Any], flat: Mapping[str, Any]) -> None:
    """Checks that the fields given for a run do not change its parameters."""
    for path in {**shapes, **flat}:
        wanted = shapes[path].shape if path in shapes else "nothing"
        found = np.shape(flat[path]) if path in flat else "nothing"
        if wanted != found:
            raise WeightsError(
                f"The run has other fields of {name} than those given: {name_of(path)} "
                f"has the shape {found}, and {wanted} with the given ones."
            )


def _adapt(
    flat: Mapping[str, Any], shapes: Mapping[str, Any]
) -> tuple[dict[str, jax.Array], list[str]]:
    """The variables in the wanted shapes, and the paths of those to initialise."""
    adapted, fresh = {}, []
    for path, leaf in shapes.items():
        x = flat.get(path)
        if x is not None and x.shape != leaf.shape and x.ndim == 4:
            # Only the input channels of the first kernel can change.
            x = _with_channels(x.astype(leaf.dtype), leaf.shape[2])
        if x is None or x.shape != leaf.shape:
            fresh.append(path)
        else:
            adapted[path] = jnp.asarray(x, leaf.dtype)
    return adapted, fresh


def _with_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A kernel `[kh, kw, I, O]` for images of another number of channels, timm's way.

    Where it is a multiple, images whose repeated channels are equal give the same.
    """
    given = kernel.shape[2]
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    repeated = kernel[:, :, np.arange(channels) % given]
    return repeated * np.asarray(given / channels, kernel.dtype)


def _initial(
    model: nn.Module, images: jax.Array, paths: Sequence[str]
) -> dict[str, jax.Array]:
    """Initial values of some of a model's variables; no others are computed."""

    @jax.jit
    def init():
        flat = flatten(model.init(jax.random.key(0), images))
        return {path: flat[path] for path in paths}

    return init()
