"""Intermediate features of a model, by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from cnn_flax.analysis.jaxpr import abstract_images, abstract_variables, check_module
from cnn_flax.analysis.receptive_field import ReceptiveField, receptive_fields
from cnn_flax.registry import nearest

__all__ = ["FeatureInfo", "feature_info", "features"]


@dataclasses.dataclass(frozen=True)
class FeatureInfo:
    """Description of a feature of a model.

    Attributes:
      name: the name that `features` takes.
      channels: number of its channels.
      stride: (vertical, horizontal) pixels of the image from one position to the next;
        None for a vector, which has no positions.
      receptive_field: which pixels a position sees; None if unknown.
    """

    name: str
    channels: int
    stride: tuple[float, float] | None
    receptive_field: ReceptiveField | None


def feature_info(
    model: nn.Module,
    image_size: int | Sequence[int] = 224,
    *,
    channels: int = 3,
    ignore_global: bool = False,
    **arguments: Any,
) -> tuple[FeatureInfo, ...]:
    """Describes the features of a model, in the order of the forward pass.

    Features are what the model sows into "intermediates". In our models: `stem`, the
    stages as numbered in their papers, `pre_logits`.

    Args:
      model: any module that takes images `[N, H, W, C]`; nothing is computed.
      image_size: of the image, in pixels: one number or (height, width). Fields depend
        on it if the padding is "SAME".
      channels: number of channels of the image.
      ignore_global: whether the fields leave out gates from global poolings, as
        `receptive_field` does.
      **arguments: further arguments of the model's call, such as `train=False`.

    Raises:
      ValueError: if a size is not a positive integer.
      TypeError: if `model` is not a module.
    """
    images = abstract_images(image_size, channels)
    variables = abstract_variables(model, images, **arguments)
    order: list[str] = []

    def forward(variables, images):
        sown = _sown(model, variables, images, arguments)
        order.extend(sown)
        return sown

    shapes = jax.eval_shape(forward, variables, images)
    fields = receptive_fields(
        model,
        images.shape[1:3],
        channels=channels,
        ignore_global=ignore_global,
        **arguments,
    )
    infos = []
    for name in order:
        field = fields.get(name)
        is_map = len(shapes[name].shape) == 4
        stride = field.stride if field and is_map else None
        infos.append(FeatureInfo(name, shapes[name].shape[-1], stride, field))
    return tuple(infos)


def features(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    names: Sequence[str],
    **arguments: Any,
) -> dict[str, jax.Array]:
    """Computes features of a model, in evaluation mode.

        maps = cnn_flax.features(model, variables, images, ["stage2", "stage4"])

    Under `jax.jit` nothing after the last requested feature is computed.

    Args:
      model: any module that sows its features into "intermediates", as ours do.
      variables: of the model.
      images: float `[N, H, W, C]`.
      names: which features; `feature_info` lists them.
      **arguments: further arguments of the model's call, such as `train=False`.

    Returns:
      By name: `[N, H', W', C']` or `[N, C']`.

    Raises:
      ValueError: if a feature does not exist; the message names the nearest ones.
      TypeError: if `model` is not a module.
    """
    if isinstance(names, str):
        raise ValueError(
            f"names must be a list of names, such as [{names!r}]; got {names!r}."
        )
    sown = _sown(model, variables, images, arguments)
    for name in names:
        if name not in sown:
            raise ValueError(
                f"The model has no feature {name!r}. {nearest(name, sown)} "
                f"It has: {', '.join(sown) or 'none'}."
            )
    return {name: sown[name] for name in names}


def _sown(model, variables, images, arguments) -> dict[str, jax.Array]:
    """Sown arrays by name, in the program's order; of repeated names the last."""
    check_module(model)
    _, state = model.apply(variables, images, mutable=["intermediates"], **arguments)
    flat: Any = traverse_util.flatten_dict(state.get("intermediates", {}), sep="/")
    last = {k: v[-1] if isinstance(v, tuple) else v for k, v in flat.items()}
    # A scalar of the whole batch, such as a loss, is not a feature.
    return {k: v for k, v in last.items() if jnp.ndim(v) > 1}
