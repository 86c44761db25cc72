"""Our variables of a model: their paths and shapes, and which sizes may differ."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn_flax.registry import Registration, create_model, registration
from cnn_flax.weights.errors import WeightsError, name_of

__all__ = ["Sizes", "auxiliary_paths", "flatten", "sizes", "variable_shapes"]

_COLLECTIONS = ("params", "batch_stats")
# The field that leaves auxiliary heads out.
_AUXILIARY = "aux_logits"
# Sizes that no layer has by chance: a model is traced with them to find its head and
# the kernel that takes the images. Nothing of such a size is ever computed.
_CLASSES, _CHANNELS = 7919, 7907

Flat = dict[str, Any]


class Sizes(NamedTuple):
    """What may differ between two checkpoints of one model.

    Attributes:
      num_classes: outputs of the head; 0 where there is none.
      in_channels: channels of the images.
      without: fields that are false because the weights lack what they stand for.
    """

    num_classes: int
    in_channels: int
    without: tuple[str, ...] = ()

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the model that these weights require."""
        return {"num_classes": self.num_classes, **dict.fromkeys(self.without, False)}


def flatten(variables: Mapping[str, Any]) -> Flat:
    """The leaves by path, such as "params/conv1/bn/scale".

    Raises:
      WeightsError: if there is a collection other than "params" and "batch_stats".
    """
    for collection in variables:
        if collection not in _COLLECTIONS:
            raise WeightsError(
                'Variables are {"params": ..., "batch_stats": ...}, or one of the two; '
                f"got {name_of(collection)}."
            )
    ordered = {c: variables[c] for c in _COLLECTIONS if c in variables}
    return traverse_util.flatten_dict(ordered, sep="/")


def variable_shapes(
    name: str,
    fields: Mapping[str, Any],
    in_channels: int = 3,
    image_size: int | None = None,
) -> Flat:
    """Shapes and dtypes of a model's variables by path; nothing is computed.

    Each model is traced once: loading weights asks for the same shapes several times.
    """
    model = registration(name)
    items = tuple(sorted(fields.items()))
    try:
        hash(items)
        trace = _traced
    except TypeError:  # Fields such as lists.
        trace = _traced.__wrapped__
    # Without x64, float64 fields give float32.
    precision = jnp.result_type(float)
    size = image_size or model.image_size
    return dict(trace(name, model, items, in_channels, size, precision))


@functools.cache
def _traced(
    name: str,
    model: Registration,
    fields: tuple[tuple[str, Any], ...],
    in_channels: int,
    image_size: int,
    precision: Any,
) -> Flat:
    """`variable_shapes`; `model` and `precision` only tell the results apart."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, in_channels), np.float32)
    init = create_model(name, **dict(fields)).init
    return flatten(jax.eval_shape(lambda x: init(jax.random.key(0), x), images))


def sizes(name: str, flat: Mapping[str, Any], **fields: Any) -> Sizes:
    """The sizes of a model's variables, by their paths.

    The model itself says which of its parameters depend on the number of classes and on
    the images' channels, so that it may call its layers what it likes.

    Args:
      name: the model's.
      flat: arrays by path, as `flatten` returns them.
      **fields: fields that the model is created with, where they change its
        parameters.
    """
    marked = _marked_shapes(name, fields)
    num_classes, in_channels = 0, 3
    for path, leaf in marked.items():
        shape = np.shape(flat[path]) if path in flat else ()
        if not shape or len(shape) != len(leaf.shape):
            continue
        if leaf.shape[-1] == _CLASSES:
            num_classes = shape[-1]
        if len(shape) == 4 and leaf.shape[2] == _CHANNELS:
            in_channels = shape[2]
    auxiliary = auxiliary_paths(name, fields)
    lacks_them = bool(auxiliary) and not any(path in flat for path in auxiliary)
    return Sizes(num_classes, in_channels, (_AUXILIARY,) if lacks_them else ())


def auxiliary_paths(name: str, fields: Mapping[str, Any]) -> set[str]:
    """The variables that a model has only with its field `aux_logits`."""
    if not hasattr(create_model(name), _AUXILIARY):
        return set()
    with_heads = _marked_shapes(name, {**fields, _AUXILIARY: True})
    without = _marked_shapes(name, {**fields, _AUXILIARY: False})
    return with_heads.keys() - without.keys()


def _marked_shapes(name: str, fields: Mapping[str, Any]) -> Flat:
    return variable_shapes(name, {**fields, "num_classes": _CLASSES}, _CHANNELS)
