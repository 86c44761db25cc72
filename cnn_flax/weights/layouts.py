"""The order of a parameter's axes, ours and torch's.

| parameter | ours | torch's |
| --- | --- | --- |
| kernel of a convolution | `[kh, kw, I / groups, O]` | `[O, I / groups, kh, kw]` |
| kernel of a dense layer | `[I, O]` | `[O, I]` |
| `layer_scale` of a block | `[C]` | `[C, 1, 1]` |
| any other | the same | the same |

A dense layer on a flattened map has its inputs in our order (height, width, channel),
and in torch's (channel, height, width). Where our convolution covers the map that it
was trained on (VGG's classifier), torch has such a dense layer.
"""

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from cnn_flax.weights.errors import WeightsError, name_of

__all__ = ["as_numpy", "from_torch_layout", "to_torch_layout", "torch_shape"]

_TORCH_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}
_OUR_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}


def to_torch_layout(
    path: str, x: np.ndarray, flattened: tuple[int, int] | None = None
) -> np.ndarray:
    """A copy of our parameter in torch's layout.

    Args:
      path: our path of it; the last part is "kernel" for a kernel.
      x: the parameter.
      flattened: height and width of the map that torch's dense layer takes flattened.

    Raises:
      WeightsError: if a kernel's rank is neither 2 nor 4.
    """
    if not _is_kernel(path):
        return np.array(x).reshape(torch_shape(path, x.shape))
    x = x.transpose(_axes(path, x.shape))
    if flattened is not None:
        if x.ndim == 2:
            x = x.reshape(len(x), *flattened, -1).transpose(0, 3, 1, 2)
        x = x.reshape(len(x), -1)
    return np.array(x, order="C")


def from_torch_layout(
    path: str, x: np.ndarray, flattened: tuple[int, int] | None = None, rank: int = 2
) -> np.ndarray:
    """A copy of torch's parameter in our layout: the inverse of `to_torch_layout`.

    Where torch's layer takes a map flattened, ours may be of `rank` 2 or 4.
    """
    if not _is_kernel(path):
        return np.array(x).reshape(len(x) if _is_layer_scale(path) else x.shape)
    if flattened is not None:
        x = x.reshape(len(x), -1, *flattened)
        if rank == 2:
            x = x.transpose(0, 2, 3, 1).reshape(len(x), -1)
    return np.array(x.transpose(_OUR_AXES[x.ndim]), order="C")


def torch_shape(
    path: str, shape: Sequence[int], flattened: tuple[int, int] | None = None
) -> tuple[int, ...]:
    """The shape in torch's layout of our parameter with that shape."""
    if _is_layer_scale(path):
        return (*shape, 1, 1)
    if not _is_kernel(path):
        return tuple(shape)
    outputs, *inputs = (shape[axis] for axis in _axes(path, shape))
    return (outputs, *inputs) if flattened is None else (outputs, math.prod(inputs))


def as_numpy(value: Any) -> np.ndarray:
    """Converts an array or a torch tensor to numpy with its dtype, without torch."""
    if hasattr(value, "detach"):  # A torch tensor.
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            # numpy has no bfloat16. Every bfloat16 is exact in float32.
            return value.float().numpy().astype(ml_dtypes.bfloat16)
        return value.numpy()
    return np.asarray(value)


def _axes(path: str, shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) not in _TORCH_AXES:
        raise WeightsError(
            f"{name_of(path)} has the shape {list(shape)}; a kernel has rank 4 or 2."
        )
    return _TORCH_AXES[len(shape)]


def _is_kernel(path: str) -> bool:
    return path.rpartition("/")[2] == "kernel"


def _is_layer_scale(path: str) -> bool:
    return path.rpartition("/")[2] == "layer_scale"
