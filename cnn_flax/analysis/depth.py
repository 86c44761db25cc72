"""Number of weighted layers from the image to the logits, as the papers count them."""

from collections.abc import Sequence

import jax
from flax import linen as nn
from jax.extend import core

from cnn_flax.analysis.jaxpr import (
    abstract_images,
    abstract_variables,
    bodies,
    label_of,
    labelled,
    scan_counts,
)
from cnn_flax.analysis.multiply_adds import equation_multiply_adds, multiply_adds
from cnn_flax.analysis.propagation_rules import DEFORM_CONV
from cnn_flax.layers import SqueezeExcite

__all__ = ["depth"]


def depth(model: nn.Module, image_size: int | Sequence[int] = 224) -> int:
    """Number of convolutions and dense layers on the longest path through a model.

    Of parallel branches only the longest counts, so a projection shortcut, being
    shorter than the residual branch, does not. Squeeze-and-excitation and offset
    branches are excluded: their papers name a net after the one they are inserted into.

    The depth is 8 for AlexNet, 16 for VGG-16, 22 for GoogLeNet, 50 for ResNet-50, 121
    for DenseNet-121. The papers give no depth for EfficientNets; by the same rule an
    MBConv block has three layers (two without expansion), and B0 has 50. A stem of
    three convolutions counts as three, as in the name of SENet-154, so that ResNet-50-D
    has 52.

    Args:
      model: any module that takes images `[N, H, W, 3]`; nothing is computed.
      image_size: of the image, in pixels: one number or (height, width).

    Raises:
      ValueError: if a size is not a positive integer.
      TypeError: if `model` is not a module.
      NotImplementedError: if the number of times a product runs is unknown.
    """
    images = abstract_images(image_size)
    variables = abstract_variables(model, images)
    with labelled(lambda m: m.name if isinstance(m, SqueezeExcite) else None):
        program = jax.make_jaxpr(model.apply)(variables, images).jaxpr
    multiply_adds(program)  # Raises for loops whose trip count is unknown.
    return max(_depths(program, [0] * len(program.invars)))


def _depths(program: core.Jaxpr, inputs: Sequence[int]) -> list[int]:
    """Layers up to each output of a program, given those up to its inputs."""
    layers = dict(zip(program.invars, inputs, strict=True))

    def read(variables):
        # Constants have depth 0.
        return [
            0 if isinstance(v, core.Literal) else layers.get(v, 0) for v in variables
        ]

    for equation in program.eqns:
        depths = _through(equation, read(equation.invars))
        layers.update(zip(equation.outvars, depths, strict=True))
    return read(program.outvars)


def _through(equation: core.JaxprEqn, inputs: list[int]) -> list[int]:
    """Layers up to each output of an operation, given those up to its inputs."""
    deepest = max(inputs, default=0)
    own = 1 if equation_multiply_adds(equation) else 0
    if label_of(equation):  # Squeeze and excitation.
        own = 0
    elif DEFORM_CONV.match(str(equation.params.get("name"))):
        # Its inputs are image, offsets and weights.
        deepest, own = inputs[0], 1
    else:
        for body, times in bodies(equation):
            if times is not None:
                return _through_body(equation, body, times, inputs)
    return [deepest + own] * len(equation.outvars)


def _through_body(equation, body, times, inputs):
    # The first input of a `cond` is its index.
    inputs = inputs[-len(body.invars) :]
    outputs = _depths(body, inputs)
    if times == 1:
        return outputs
    constants, carried = scan_counts(equation)
    for _ in range(times - 1):
        inputs[constants : constants + carried] = outputs[:carried]
        outputs = _depths(body, inputs)
    return outputs
