"""Dilation in the place of stride: maps stay large, and kernels see as far.

Chen, Papandreou, Kokkinos, Murphy and Yuille 2014, "Semantic image segmentation with
deep convolutional nets and fully connected CRFs", https://arxiv.org/abs/1412.7062,
section 3.1: where a stride is left out, all later kernels take every second pixel, so
that each position computes what it did, and further positions appear between them.
"""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "StageSteps",
    "check_output_stride",
    "last_of_each_stride",
    "stage_steps",
]


class StageSteps(NamedTuple):
    """How a stage steps over its input.

    Attributes:
      strides: of its first block, in pixels.
      first_dilation: step between the taps of the convolution that has, or would have,
        the stride: its input is as dense as that of the stage before.
      dilation: step between the taps of all convolutions after it.
    """

    strides: int
    first_dilation: int
    dilation: int


def stage_steps(
    stem_stride: int, strides: Sequence[int], output_stride: int
) -> list[StageSteps]:
    """Steps of the stages whose maps have no stride above `output_stride`.

    The rule of timm's `output_stride`, which torchvision's
    `replace_stride_with_dilation` follows too.

    Args:
      stem_stride: stride of what the first stage receives, in pixels of the image.
      strides: of each stage.
      output_stride: largest stride of a map, in pixels of the image.
    """
    steps, stride, dilation = [], stem_stride, 1
    for own in strides:
        first_dilation = dilation
        if stride * own > output_stride:
            dilation, own = dilation * own, 1
        stride *= own
        steps.append(StageSteps(own, first_dilation, dilation))
    return steps


def last_of_each_stride(strides: Sequence[int]) -> tuple[str, ...]:
    """Names of the stages whose successor has a stride, and of the last.

    Args:
      strides: of each stage, without dilation.
    """
    steps = [*strides[1:], 2]
    return tuple(f"stage{i}" for i, step in enumerate(steps, 1) if step > 1)


def check_output_stride(output_stride: int, stem_stride: int) -> None:
    """Checks a network's field `output_stride`.

    Raises:
      ValueError: if it is not a power of 2 from the stem's stride to 32.
    """
    allowed = [n for n in (1, 2, 4, 8, 16, 32) if n >= stem_stride]
    if output_stride not in allowed:
        raise ValueError(
            f"output_stride must be one of {', '.join(map(str, allowed))}, got "
            f"{output_stride}."
        )
