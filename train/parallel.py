"""The steps on the devices there are: `jax.jit` over a mesh, the batch sharded.

The compiler sees the whole batch, so that BatchNorm and every mean are over all of it,
and puts in what the devices have to tell each other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train.errors import UserError

__all__ = ["Placement", "compile_step"]


class Placement:
    """Where the arrays of a run lie.

    Attributes:
      whole: the sharding of what each device has all of: state, keys.
      split: the sharding of batches, along their first axis.
    """

    def __init__(self, devices: Sequence[Any] | None = None) -> None:
        """Takes all devices, or those given."""
        devices = jax.devices() if devices is None else devices
        mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
        self.whole = NamedSharding(mesh, PartitionSpec())
        self.split = NamedSharding(mesh, PartitionSpec("data"))

    def check(self, batch_size: int) -> None:
        """Raises `UserError` where the devices cannot share a batch evenly."""
        devices = self.whole.mesh.size
        if batch_size % devices:
            raise UserError(
                f"--batch-size must be a multiple of the {devices} devices, got "
                f"{batch_size}."
            )

    def shapes(self, tree: Any, sharding: NamedSharding) -> Any:
        """Shapes and dtypes of arrays, placed: what to compile for and restore into."""

        def placed(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(placed, tree)


def compile_step(
    step: Callable[..., Any],
    arguments: Sequence[Any],
    *,
    out: Any,
    donate: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """Compiles a step for arguments of one shape and placement, and no other.

    Called with anything else it raises, so that a loop cannot compile twice unseen.

    Args:
      step: a pure function.
      arguments: trees of `jax.ShapeDtypeStruct` with shardings.
      out: sharding of the results.
      donate: arguments whose memory the results may take.
    """
    jitted = jax.jit(step, out_shardings=out, donate_argnums=donate)
    return jitted.lower(*arguments).compile()
