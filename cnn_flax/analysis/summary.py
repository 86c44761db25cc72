"""Summary of a model per block: shapes, parameters, multiply-adds, receptive fields."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from flax import linen as nn

from cnn_flax.analysis.jaxpr import abstract_images, abstract_variables, labelled
from cnn_flax.analysis.multiply_adds import multiply_adds
from cnn_flax.analysis.named_arrays import arrays_of, trace
from cnn_flax.analysis.receptive_field import ReceptiveField, fields_of

__all__ = ["BlockSummary", "Summary", "summary"]


@dataclasses.dataclass(frozen=True)
class BlockSummary:
    """One block of a model.

    Attributes:
      name: of the block; the name of the model's class for what the model computes
        outside its blocks.
      output_shape: `(H, W, C)` or `(features,)`, without N; None if evaluation does not
        call the block, or it returns several arrays.
      parameters: number of trainable scalars.
      multiply_adds: per image.
      receptive_field: of the output; None if there is no single output, or its field is
        unknown.
    """

    name: str
    output_shape: tuple[int, ...] | None
    parameters: int
    multiply_adds: int
    receptive_field: ReceptiveField | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """A model's blocks, in the order of the calls.

    Attributes:
      image_size: (height, width) of the image, in pixels.
      blocks: the modules that the model calls, followed by the model's own operations.
    """

    image_size: tuple[int, int]
    blocks: tuple[BlockSummary, ...]

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(block.parameters for block in self.blocks)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per image."""
        return sum(block.multiply_adds for block in self.blocks)


def summary(
    model: nn.Module,
    image_size: int | Sequence[int] = 224,
    *,
    channels: int = 3,
    ignore_global: bool = False,
    **arguments: Any,
) -> Summary:
    """Summarises shapes, parameters, multiply-adds and receptive fields per block.

    Multiply-adds are those of convolutions and matrix products, per image, including
    taps on padding. They are counted in the traced program, so that any Flax module
    works. A platform-dependent operation counts as its default: a formulation for one
    platform does not change the numbers.

    Args:
      model: any module that takes images `[N, H, W, C]`; nothing is computed.
      image_size: of the image, in pixels: one number or (height, width).
      channels: number of channels of the image.
      ignore_global: whether the fields leave out gates from global poolings, as
        `receptive_field` does.
      **arguments: further arguments of the model's call, such as `train=False`.

    Raises:
      ValueError: if a size is not a positive integer.
      TypeError: if `model` is not a module.
      NotImplementedError: if the number of times a product runs is unknown, as inside
        `jax.lax.while_loop`; the message names the operation.
    """
    images = abstract_images(image_size, channels)
    # A dictionary as an ordered set.
    names: dict[str | None, None] = {}
    with labelled(partial(_record_name, names)):
        variables = abstract_variables(model, images, **arguments)
    params = variables.get("params", {})

    shapes: dict[str | None, tuple[int, ...] | None] = {}
    with labelled(_block), nn.intercept_methods(partial(_record_shape, shapes)):
        traced = trace(model, images, arguments, variables)
    itself = type(model).__name__
    costs = multiply_adds(traced.program.jaxpr, itself)
    fields = fields_of(arrays_of(traced, ignore_global=ignore_global))

    blocks = [
        BlockSummary(
            name,
            shapes.get(name),
            _size(params.get(name, {})),
            costs[name],
            fields.get(name),
        )
        for name in names
        if name is not None
    ]
    own = _size({k: v for k, v in params.items() if k not in names})
    if own or costs[itself]:
        blocks.append(
            BlockSummary(itself, shapes[None], own, costs[itself], fields.get("output"))
        )
    return Summary(images.shape[1:3], tuple(blocks))


def _block(module: nn.Module) -> str | None:
    """Name of the block that contains a module; None for the model itself."""
    return module.path[0] if module.path else None


def _record_name(names, module):
    # Dropout does nothing in evaluation.
    if not isinstance(module, nn.Dropout):
        names.setdefault(_block(module))


def _record_shape(shapes, method, args, kwargs, context):
    # The last call to return is the block's own, after those of its helper methods.
    output = method(*args, **kwargs)
    if len(context.module.path) <= 1:
        arrays = [x for x in jax.tree.leaves(output) if isinstance(x, jax.Array)]
        shape = arrays[0].shape[1:] if len(arrays) == 1 else None
        shapes[_block(context.module)] = shape
    return output


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
