"""Which arrays of a state are split over the devices of the mesh's axis `model`.

The rule depends on an array's name and shape alone, so that a kernel, its momentum and
its moving average are split alike, and an update needs no other device.
"""

from typing import Any

from jax.sharding import PartitionSpec

__all__ = ["MODEL", "SPLIT", "partition"]

MODEL = "model"

# The names of arrays that are split, along the largest axis that the devices divide.
# Every other array (scales, biases, statistics, counters, a method's state) has a copy
# on every device.
SPLIT = ("kernel",)


def partition(path: Any, shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """How an array is split over `model`: along the last of its largest axes.

    Args:
      path: of the array in its tree, as `jax.tree_util.tree_map_with_path` gives it.
      shape: of the array.
      devices: number of devices along `model`.
    """
    names = [getattr(entry, "key", None) for entry in path]
    axes = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if devices == 1 or not axes or not names or names[-1] not in SPLIT:
        return PartitionSpec()
    largest = max(axes, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*[None] * largest, MODEL)
