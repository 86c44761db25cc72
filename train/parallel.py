"""The steps on many devices: `jax.jit` over a mesh with the batch sharded, or `pmap`.

Under `jit` the compiler sees the whole batch, so that BatchNorm and every mean are over
all of it, and puts in what the devices have to tell each other. Under `jax.pmap` each
device sees its part, and the step says itself what is to be averaged over `AXIS`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train.errors import UserError

__all__ = [
    "AXIS",
    "Placement",
    "by_device",
    "choose_devices",
    "compile_step",
    "mapped",
]

AXIS = "data"


def choose_devices(count: int) -> list[Any]:
    """The first `count` devices of the machine, or all for 0.

    Raises:
      UserError: if there are fewer.
    """
    devices = jax.devices()
    if count > len(devices):
        raise UserError(
            f"--devices is {count}, and there are {len(devices)}: "
            f"{', '.join(map(str, devices))}."
        )
    return devices[: count or None]


class Placement:
    """Where the arrays of a run lie.

    Attributes:
      devices: in the order of the batch's parts.
      whole: the sharding of what each device has all of: state, keys.
      split: the sharding of batches, along their first axis.
    """

    def __init__(self, devices: Sequence[Any] | None = None) -> None:
        """Takes all devices, or those given."""
        self.devices = list(jax.devices() if devices is None else devices)
        mesh = Mesh(self.devices, (AXIS,), axis_types=(AxisType.Auto,))
        self.whole = NamedSharding(mesh, PartitionSpec())
        self.split = NamedSharding(mesh, PartitionSpec(AXIS))

    def round_up(self, batch_size: int) -> int:
        """The next batch size that the devices can share evenly."""
        return -(-batch_size // len(self.devices)) * len(self.devices)

    def check(self, batch_size: int, parts: int = 1, pairs: bool = False) -> None:
        """Raises `UserError` where the devices cannot share a batch's parts evenly.

        Args:
          batch_size: images a step, over all devices.
          parts: that the batch is worked off in.
          pairs: whether images are mixed in pairs, each on one device.
        """
        devices = len(self.devices)
        if batch_size % (devices * parts):
            times = f" times --gradient-accumulation {parts}" if parts > 1 else ""
            raise UserError(
                f"--batch-size must be a multiple of the {devices} devices{times}, got "
                f"{batch_size}."
            )
        if pairs and batch_size % (2 * devices):
            raise UserError(
                "--mixup and --cutmix mix pairs of images: --batch-size must be a "
                f"multiple of 2 for each of the {devices} devices, got {batch_size}."
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


def by_device(
    prepare: Callable[[Any, Any, Any], Any], placement: Placement
) -> Callable[[Any, Any, Any], Any]:
    """Lets each device prepare its rows of the batch, under `jit`, by itself.

    What is done an image or a pair at a time needs no other device. Said so, the
    compiler need not find it out, nor gather a batch that is worked off in a loop.

    Args:
      prepare: a function of rows, rows and what is the same for all; it returns rows.
      placement: of the batch.
    """
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    return jax.shard_map(
        prepare,
        mesh=placement.split.mesh,
        in_specs=(split, split, whole),
        out_specs=split,
        check_vma=False,  # It knows nothing of loops that only some devices run.
    )


def mapped(
    step: Callable[[Any, Any, Any], Any], devices: Sequence[Any]
) -> Callable[[Any, Any, Any], Any]:
    """The step by `jax.pmap`: each device runs it on its rows of the batch.

    Args:
      step: a pure function of a state, a batch and a key, made for the axis `AXIS`;
        what it returns is the same on every device.
      devices: where it runs.

    Returns:
      A function of the state, the whole batch and the key, to be compiled.
    """
    run = jax.pmap(
        step,
        AXIS,
        in_axes=(None, 0, None),
        out_axes=(None, None),  # pyright: ignore[reportArgumentType]
        devices=devices,
    )

    def on_rows(state, batch, key):
        rows = jax.tree.map(lambda x: x.reshape(len(devices), -1, *x.shape[1:]), batch)
        return run(state, rows, key)

    return on_rows
